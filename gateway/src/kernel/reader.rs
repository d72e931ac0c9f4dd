//! What the kernel side counted.

use std::fmt;

use aya::maps::{MapData, MapError, PerCpuArray};
use gateway_common::outcome::COUNTERS;
use gateway_common::{Counter, Deny, SourceKey, maps};
use ipnet::IpNet;

use crate::identity::Source;

use super::accounts::Accounts;
use super::errors::map_error;
use super::tables::{Bans, Tries, typed};
use super::{KernelError, SourceAccount, Totals};

/// Handles to read by.
pub struct MapReader {
    stats: PerCpuArray<MapData, Counter>,
    accounts: Accounts,
    bans: Bans,
    denied: Tries<Deny>,
}

impl fmt::Debug for MapReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapReader")
    }
}

impl MapReader {
    pub(super) fn open(open: &impl Fn(&str) -> Result<MapData, MapError>) -> Result<Self, MapError> {
        Ok(Self {
            stats: typed(open, maps::STATS)?,
            accounts: Accounts::open(open)?,
            bans: Bans::open(open)?,
            denied: Tries::open(open, maps::DENY4, maps::DENY6)?,
        })
    }

    /// The counters, of all CPUs together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn totals(&self) -> Result<Totals, KernelError> {
        let mut totals = [Counter::default(); COUNTERS as usize];
        for (number, total) in (0..).zip(&mut totals) {
            let counters = self.stats.get(&number, 0).map_err(|error| map_error(maps::STATS, &error))?;
            for Counter { count, bytes, syn } in counters.iter() {
                total.count += count;
                total.bytes += bytes;
                total.syn += syn;
            }
        }
        Ok(Totals(totals))
    }

    /// Every source that has an account; some system calls each.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn sources(&self) -> Result<Vec<SourceAccount>, KernelError> {
        let accounts = self.accounts.all().map_err(|error| map_error(maps::SOURCES, &error))?;
        let account = |(key, account): (SourceKey, _)| SourceAccount { source: Source::of(key.address()), account };
        Ok(accounts.into_iter().map(account).collect())
    }

    /// Packets dropped by the ban of exactly this network; 0 where there is none.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn dropped(&self, network: IpNet) -> Result<u64, KernelError> {
        let deny = match SourceKey::of(network.addr()) {
            Some(source) if source.prefix_length() == network.prefix_len() => self.bans.get(source),
            _ => self.denied.get(network),
        };
        Ok(deny.map_err(|error| map_error(maps::BANS, &error))?.map_or(0, |deny| deny.dropped))
    }
}
