//! Sources that have gone quiet leave the kernel side's table, which makes no room by itself: what it evicted might be a true
//! client, and a flood of forged ones would choose which.

use std::collections::HashMap;

use aya::maps::{Array, MapData, MapError};
use gateway_common::{Source, SourceKey, maps, source_bit};

use super::accounts::Accounts;
use super::tables::typed;

const SECOND_NS: u64 = 1_000_000_000;
/// A source that sent nothing for so long is forgotten.
const IDLE_NS: u64 = 3600 * SECOND_NS;
/// The same while the table is nearly full.
const IDLE_CROWDED_NS: u64 = 600 * SECOND_NS;
/// The same of a source that has never sent more than a forged address could.
const IDLE_STRANGER_NS: u64 = 60 * SECOND_NS;
/// A SYN, and its repetitions.
const STRANGER_PACKETS: u64 = 4;

/// The table, for whoever tidies it.
pub(super) struct Sources {
    accounts: Accounts,
    bits: Array<MapData, u64>,
}

impl Sources {
    pub(super) fn open(open: &impl Fn(&str) -> Result<MapData, MapError>) -> Result<Self, MapError> {
        Ok(Self { accounts: Accounts::open(open)?, bits: typed(open, maps::BITS)? })
    }

    /// Takes sources out that were not seen for long; sooner while there is little room.
    pub(super) fn forget_idle(&mut self, now_ns: u64) -> Result<(), MapError> {
        let all = self.accounts.all()?;
        let crowded = all.len() >= usize::try_from(maps::SOURCES_MAX / 4 * 3).unwrap_or(usize::MAX);
        // Collected first: a walk that meets a key which is gone begins anew.
        let (idle, busy): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(_, account)| now_ns.saturating_sub(account.last_seen_ns) > patience(account, crowded));
        if idle.is_empty() {
            return Ok(());
        }
        for (source, _) in &idle {
            self.accounts.remove(*source)?;
        }
        // Those that came meanwhile keep their bits.
        let needed: Vec<_> = busy.into_iter().map(|(source, _)| source).chain(self.accounts.known()).collect();
        self.clear_bits(needed.into_iter())
    }

    /// Clears the bits that no source has.
    fn clear_bits(&mut self, sources: impl Iterator<Item = SourceKey>) -> Result<(), MapError> {
        let mut needed: HashMap<u32, u64> = HashMap::new();
        for (word, bit) in sources.map(source_bit) {
            *needed.entry(word).or_default() |= bit;
        }
        // The even words are the bans'.
        for word in (1..maps::BITS_WORDS).step_by(2) {
            let (bits, needed) = (self.bits.get(&word, 0)?, needed.get(&word).copied().unwrap_or_default());
            if bits & !needed != 0 {
                self.bits.set(word, bits & needed, 0)?;
            }
        }
        Ok(())
    }
}

/// How long a source may be quiet.
fn patience(account: &Source, crowded: bool) -> u64 {
    let stranger = account.packets <= STRANGER_PACKETS && account.packets == account.syn;
    match (stranger, crowded) {
        (true, _) => IDLE_STRANGER_NS,
        (false, true) => IDLE_CROWDED_NS,
        (false, false) => IDLE_NS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shook_hands_stays_longer() {
        let account = |packets, syn| Source { packets, syn, ..Source::default() };
        for (account, crowded, seconds) in [
            (account(1, 1), false, 60),
            (account(4, 4), true, 60),
            (account(5, 5), false, 3600),
            (account(3, 1), false, 3600),
            (account(3, 1), true, 600),
        ] {
            assert_eq!(patience(&account, crowded), seconds * SECOND_NS, "{account:?}");
        }
    }
}
