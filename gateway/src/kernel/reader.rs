//! What the kernel side counted.

use std::fmt;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use gateway_common::outcome::{self, COUNTERS};
use gateway_common::{Counter, Deny, SourceKey, maps};
use ipnet::IpNet;

use crate::identity::Source;

use super::tables::{Tries, found, typed};

/// A source that sent nothing for so long is forgotten.
const IDLE_NS: u64 = 3600 * 1_000_000_000;
/// The same while the table is nearly full.
const IDLE_CROWDED_NS: u64 = 60 * 1_000_000_000;

/// Handles to read by.
pub struct Reader {
    stats: PerCpuArray<MapData, Counter>,
    sources: HashMap<MapData, SourceKey, gateway_common::Source>,
    bans: HashMap<MapData, SourceKey, Deny>,
    denied: Tries<Deny>,
}

/// All counters, by the numbers of [`outcome`], added up over CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals([u64; COUNTERS as usize]);

/// One source's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceAccount {
    /// Who.
    pub source: Source,
    /// What.
    pub account: gateway_common::Source,
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
    pub fn totals(&self) -> Result<Totals, MapError> {
        let mut totals = [0; COUNTERS as usize];
        for (number, total) in (0..).zip(&mut totals) {
            *total = self.stats.get(&number, 0)?.iter().map(|counter| counter.count).sum();
        }
        Ok(Totals(totals))
    }

    /// Every source that has an account.
    pub fn sources(&self) -> Result<Vec<SourceAccount>, MapError> {
        let accounts = self
            .sources
            .iter()
            .map(|entry| entry.map(|(key, account)| SourceAccount { source: Source::of(key.address()), account }));
        accounts.collect()
    }

    /// Packets dropped by the ban of exactly this network.
    pub fn dropped(&self, network: IpNet) -> Result<u64, MapError> {
        let deny = match SourceKey::of(network.addr()) {
            Some(source) if source.prefix_length() == network.prefix_len() => found(self.bans.get(&source, 0))?,
            _ => self.denied.get(network)?,
        };
        Ok(deny.map_or(0, |deny| deny.dropped))
    }

    /// Takes sources out that were not seen for long; sooner while there is little room.
    pub(super) fn forget_idle(&mut self, now_ns: u64) -> Result<(), MapError> {
        let all: Vec<_> = self.sources.iter().collect::<Result<_, _>>()?;
        let crowded = all.len() >= usize::try_from(maps::SOURCES_MAX / 4 * 3).unwrap_or(usize::MAX);
        let idle = if crowded { IDLE_CROWDED_NS } else { IDLE_NS };
        // Collected first: a walk that meets a key which is gone begins anew.
        for (source, account) in all {
            if now_ns.saturating_sub(account.last_seen_ns) > idle {
                found(self.sources.remove(&source))?;
            }
        }
        Ok(())
    }
}

impl Totals {
    /// One counter.
    pub fn of(&self, number: u32) -> u64 {
        usize::try_from(number).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }

    /// Every counter by its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        outcome::NAMES.into_iter().zip(self.0)
    }

    /// Connection attempts.
    pub fn syn(&self) -> u64 {
        self.of(outcome::SYN_SEEN)
    }

    /// Packets to the listeners' ports.
    pub fn packets(&self) -> u64 {
        (outcome::LISTENER..outcome::OUTCOMES).map(|number| self.of(number)).sum()
    }

    /// Drops by cause.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        (outcome::DROP..outcome::WOULD_DROP).map(|number| (outcome::name(number), self.of(number)))
    }

    /// What would have been dropped, were it not for monitor-only mode.
    pub fn would_drop(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let causes = (outcome::DROP..outcome::WOULD_DROP).zip(outcome::WOULD_DROP..outcome::OUTCOMES);
        causes.map(|(cause, spared)| (outcome::name(cause), self.of(spared)))
    }
}
