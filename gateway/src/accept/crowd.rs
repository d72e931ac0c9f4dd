//! Whether most clients come from one private address: a sign of a forwarder before the gateway that hides them.
//!
//! Counted in windows, so that what was mended is forgotten. A client of a public address costs one atomic addition; only
//! private ones take the lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::policy::forwarders::is_private;

/// Sessions of one window.
const WINDOW: u32 = 1000;
/// Fewer say nothing.
const LEAST: u32 = 50;
/// From which share on it is a crowd.
const PERCENT: u32 = 80;
/// Private addresses that are told apart; more than this many is no crowd from one.
const ADDRESSES_MAX: usize = 64;

/// Who came lately.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    public: AtomicU32,
    private: Mutex<Private>,
}

#[derive(Debug, Default)]
struct Private {
    counts: HashMap<IpAddr, u32>,
    /// Of addresses beyond those told apart.
    others: u32,
    /// What the last whole window showed.
    last: Option<(IpAddr, u32)>,
}

impl Crowd {
    /// A client came, by its own connection.
    pub(super) fn count(&self, ip: IpAddr) {
        if !is_private(ip) {
            if self.public.fetch_add(1, Ordering::Relaxed) >= WINDOW {
                self.lock().begin_anew(&self.public);
            }
            return;
        }
        let mut private = self.lock();
        let full = private.counts.len() >= ADDRESSES_MAX;
        match private.counts.get_mut(&ip) {
            Some(count) => *count += 1,
            None if full => private.others += 1,
            None => drop(private.counts.insert(ip, 1)),
        }
        if private.sum() + self.public.load(Ordering::Relaxed) >= WINDOW {
            private.begin_anew(&self.public);
        }
    }

    /// The private address that most come from, and their share in percent.
    pub(super) fn one(&self) -> Option<(IpAddr, u32)> {
        let private = self.lock();
        let now = private.judge(self.public.load(Ordering::Relaxed));
        now.unwrap_or(private.last)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Private> {
        self.private.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Private {
    fn sum(&self) -> u32 {
        self.counts.values().sum::<u32>() + self.others
    }

    /// `None`: too few to say.
    fn judge(&self, public: u32) -> Option<Option<(IpAddr, u32)>> {
        let all = self.sum() + public;
        if all < LEAST {
            return None;
        }
        let most = self.counts.iter().max_by_key(|(ip, count)| (**count, **ip));
        Some(most.map(|(ip, count)| (*ip, count * 100 / all)).filter(|(_, percent)| *percent >= PERCENT))
    }

    fn begin_anew(&mut self, public: &AtomicU32) {
        self.last = self.judge(public.swap(0, Ordering::Relaxed)).flatten();
        self.counts.clear();
        self.others = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_crowd_is_told_and_forgotten() {
        let crowd = Crowd::default();
        for _ in 0..LEAST - 1 {
            crowd.count(ip("172.17.0.1"));
        }
        assert_eq!(crowd.one(), None, "too few");
        crowd.count(ip("172.17.0.1"));
        assert_eq!(crowd.one(), Some((ip("172.17.0.1"), 100)));
        for _ in 0..12 {
            crowd.count(ip("203.0.113.9"));
        }
        assert_eq!(crowd.one(), Some((ip("172.17.0.1"), 80)));
        for number in 0..2 * WINDOW {
            crowd.count(std::net::Ipv4Addr::from_bits(0xcb00_7100 | (number % 256)).into());
        }
        assert_eq!(crowd.one(), None, "mended");
    }

    #[test]
    fn many_private_addresses_are_no_crowd() {
        let crowd = Crowd::default();
        for number in 0..100_000_u32 {
            crowd.count(std::net::Ipv4Addr::from_bits(0x0a00_0000 | number).into());
        }
        assert_eq!(crowd.one(), None);
        assert!(crowd.lock().counts.len() <= ADDRESSES_MAX);
    }
}
