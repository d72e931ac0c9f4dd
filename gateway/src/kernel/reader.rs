//! What the kernel side counted.

use std::fmt;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use gateway_common::outcome::COUNTERS;
use gateway_common::{Counter, Deny, SourceKey, maps};
use ipnet::IpNet;

use crate::identity::Source;

use super::errors::map_error;
use super::tables::{Tries, found, typed};
use super::{KernelError, SourceAccount, Totals};

const SECOND_NS: u64 = 1_000_000_000;
/// A source that sent nothing for so long is forgotten.
const IDLE_NS: u64 = 3600 * SECOND_NS;
/// The same while the table is nearly full.
const IDLE_CROWDED_NS: u64 = 600 * SECOND_NS;
/// The same of a source that has never sent more than a forged address could.
const IDLE_STRANGER_NS: u64 = 60 * SECOND_NS;
/// A SYN, and its repetitions.
const STRANGER_PACKETS: u64 = 4;

/// Handles to read by.
pub struct Reader {
    stats: PerCpuArray<MapData, Counter>,
    sources: HashMap<MapData, SourceKey, gateway_common::Source>,
    bans: HashMap<MapData, SourceKey, Deny>,
    denied: Tries<Deny>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    pub(super) fn open(open: &impl Fn(&str) -> Result<MapData, MapError>) -> Result<Self, MapError> {
        Ok(Self {
            stats: typed(open, maps::STATS)?,
            sources: typed(open, maps::SOURCES)?,
            bans: typed(open, maps::BANS)?,
            denied: Tries::open(open, maps::DENY4, maps::DENY6)?,
        })
    }

    /// The counters.
    pub fn totals(&self) -> Result<Totals, KernelError> {
        let mut totals = [0; COUNTERS as usize];
        for (number, total) in (0..).zip(&mut totals) {
            let counters = self.stats.get(&number, 0).map_err(|error| map_error(maps::STATS, &error))?;
            *total = counters.iter().map(|counter| counter.count).sum();
        }
        Ok(Totals(totals))
    }

    /// Every source that has an account.
    pub fn sources(&self) -> Result<Vec<SourceAccount>, KernelError> {
        let accounts = self
            .sources
            .iter()
            .map(|entry| entry.map(|(key, account)| SourceAccount { source: Source::of(key.address()), account }));
        accounts.collect::<Result<_, _>>().map_err(|error| map_error(maps::SOURCES, &error))
    }

    /// Packets dropped by the ban of exactly this network.
    pub fn dropped(&self, network: IpNet) -> Result<u64, KernelError> {
        let deny = match SourceKey::of(network.addr()) {
            Some(source) if source.prefix_length() == network.prefix_len() => found(self.bans.get(&source, 0)),
            _ => self.denied.get(network),
        };
        Ok(deny.map_err(|error| map_error(maps::BANS, &error))?.map_or(0, |deny| deny.dropped))
    }

    /// Takes sources out that were not seen for long; sooner while there is little room.
    pub(super) fn forget_idle(&mut self, now_ns: u64) -> Result<(), MapError> {
        let all: Vec<_> = self.sources.iter().collect::<Result<_, _>>()?;
        let crowded = all.len() >= usize::try_from(maps::SOURCES_MAX / 4 * 3).unwrap_or(usize::MAX);
        let idle = if crowded { IDLE_CROWDED_NS } else { IDLE_NS };
        // Collected first: a walk that meets a key which is gone begins anew.
        for (source, account) in all {
            let stranger = account.packets <= STRANGER_PACKETS && account.packets == account.syn;
            let idle = if stranger { IDLE_STRANGER_NS } else { idle };
            if now_ns.saturating_sub(account.last_seen_ns) > idle {
                found(self.sources.remove(&source))?;
            }
        }
        Ok(())
    }
}
