//! What the kernel side counted, as numbers.

use gateway_common::Counter;
use gateway_common::outcome::{self, COUNTERS};

use crate::identity::Source;

/// All counters, by the numbers of [`outcome`], added up over CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals(pub(super) [Counter; COUNTERS as usize]);

/// One source's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceAccount {
    /// Whose packets were counted.
    pub source: Source,
    /// As the kernel side keeps it: packets, bytes, SYNs, drops.
    pub account: gateway_common::Source,
}

impl Totals {
    /// Packets with this outcome, by its number in [`outcome`].
    pub fn of(&self, number: u32) -> u64 {
        self.counter(number).count
    }

    fn counter(&self, number: u32) -> Counter {
        usize::try_from(number).ok().and_then(|index| self.0.get(index)).copied().unwrap_or_default()
    }

    /// Every counter by its name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        outcome::NAMES.into_iter().zip(self.0.map(|counter| counter.count))
    }

    /// SYNs to the listeners' ports, whatever became of them.
    pub fn syn(&self) -> u64 {
        (outcome::LISTENER..outcome::OUTCOMES).map(|number| self.counter(number).syn).sum()
    }

    /// SYNs among what was dropped.
    pub fn syn_dropped(&self) -> u64 {
        (outcome::DROP..outcome::WOULD_DROP).map(|number| self.counter(number).syn).sum()
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
