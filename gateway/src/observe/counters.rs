//! Counters, one set a worker so that no two cores write one cache line; readers add them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// One worker's counters. Only that worker writes them.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: Counter,)+
        }

        /// The sum over all workers at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Totals {
            $($(#[doc = $help])+ pub $name: u64,)+
        }

        impl Totals {
            fn add(&mut self, counters: &Counters) {
                $(self.$name += counters.$name.value();)+
            }
        }
    };
}

counters! {
    /// Connections that the system handed over.
    connections_total,
    /// Connections that became sessions.
    sessions_accepted_total,
    /// Connections turned away before a session began.
    sessions_refused_total,
    /// Sessions that are over.
    sessions_closed_total,
    /// Messages the backend answered 2xx.
    messages_accepted_total,
    /// Messages answered 5xx.
    messages_rejected_total,
    /// Messages answered 4xx.
    messages_deferred_total,
    /// Recipients refused by the relay guard.
    relay_denied_total,
    /// Sessions in which the backend could not be told who the client is.
    identity_failures_total,
    /// Clients that talked before they were asked.
    early_talkers_total,
    /// Connections to backends that could not be made.
    dials_failed_total,
    /// Relay proofs that have run.
    proofs_run_total,
    /// Relay proofs that found a relay, or trust in the gateway's address.
    proofs_found_total,
    /// Relay proofs that showed nothing.
    proofs_inconclusive_total,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// As it stands.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of all workers.
#[derive(Debug, Clone)]
pub struct CounterSet(Arc<[Arc<Counters>]>);

impl CounterSet {
    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// One worker's own.
    pub fn of(&self, worker: usize) -> Arc<Counters> {
        self.0[worker].clone()
    }

    /// All of them added up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in self.0.iter() {
            totals.add(counters);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sums_over_workers() {
        let set = CounterSet::new(2);
        set.of(0).relay_denied_total.increment();
        set.of(1).relay_denied_total.increment();
        set.of(1).sessions_accepted_total.increment();
        let expected = Totals { relay_denied_total: 2, sessions_accepted_total: 1, ..Totals::default() };
        assert_eq!(set.totals(), expected);
    }
}
