//! Limits as people think of them, and as the kernel side counts them.

use gateway_common::{CONFIG_MAGIC, CONFIG_MONITOR_ONLY, Config};

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run; at least 1.
    pub per_second: u32,
    /// So many at once, after a rest.
    pub burst: u32,
}

impl Rate {
    /// Nanoseconds that one costs, and nanoseconds a bucket may be ahead.
    fn bucket(self) -> (u64, u64) {
        let interval = 1_000_000_000 / u64::from(self.per_second.max(1));
        (interval, interval * u64::from(self.burst.saturating_sub(1)))
    }

    /// Its share when so many CPUs each have one.
    fn share(self, cpus: u32) -> Self {
        let cpus = cpus.max(1);
        Self { per_second: (self.per_second / cpus).max(1), burst: (self.burst / cpus).max(1) }
    }
}

/// What the kernel side is told. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Nothing is dropped, only counted.
    pub monitor_only: bool,
    /// Connection attempts of one source.
    pub syn: Option<Rate>,
    /// First connection attempts of all untracked sources together, on one CPU: a flood from forged addresses that come once
    /// costs no more than this many, and a client that is refused by it comes again a second later and is then let in. So
    /// are forged addresses that come again.
    pub unknown_syn: Option<Rate>,
    /// Sources that are tracked from their first packet on, on all CPUs together.
    pub new_sources: Option<Rate>,
    /// Sources that are tracked because they came again while there were too many new ones, on all CPUs together.
    pub returning_sources: Option<Rate>,
    /// How many packets make a source come again.
    pub returning_packets: u32,
    /// Events, on one CPU.
    pub events: Option<Rate>,
}

impl Default for Settings {
    /// The table holds 131,072 sources, and idle ones leave it: at 250 a second a flood that lasts for ever holds a tenth
    /// of it.
    fn default() -> Self {
        Self {
            monitor_only: false,
            syn: Some(Rate { per_second: 50, burst: 200 }),
            unknown_syn: Some(Rate { per_second: 5000, burst: 5000 }),
            new_sources: Some(Rate { per_second: 250, burst: 8192 }),
            returning_sources: Some(Rate { per_second: 1000, burst: 4096 }),
            returning_packets: 3,
            events: Some(Rate { per_second: 100, burst: 1000 }),
        }
    }
}

impl Settings {
    /// As the map has it.
    pub fn config(&self, generation: u64, seed: u64, cpus: u32) -> Config {
        let bucket = |rate: Option<Rate>| rate.map_or((0, 0), Rate::bucket);
        let (syn_interval_ns, syn_burst_ns) = bucket(self.syn);
        let (unknown_syn_interval_ns, unknown_syn_burst_ns) = bucket(self.unknown_syn);
        let (new_source_interval_ns, new_source_burst_ns) = bucket(self.new_sources.map(|rate| rate.share(cpus)));
        let (returning_interval_ns, returning_burst_ns) = bucket(self.returning_sources.map(|rate| rate.share(cpus)));
        let (event_interval_ns, event_burst_ns) = bucket(self.events);
        Config {
            magic: CONFIG_MAGIC,
            flags: if self.monitor_only { CONFIG_MONITOR_ONLY } else { 0 },
            generation,
            seed,
            syn_interval_ns,
            syn_burst_ns,
            unknown_syn_interval_ns,
            unknown_syn_burst_ns,
            new_source_interval_ns,
            new_source_burst_ns,
            returning_interval_ns,
            returning_burst_ns,
            event_interval_ns,
            event_burst_ns,
            returning_packets: self.returning_packets,
            reserved: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_buckets() {
        assert_eq!(Rate { per_second: 1000, burst: 10 }.bucket(), (1_000_000, 9_000_000));
        assert_eq!(Rate { per_second: 1, burst: 1 }.bucket(), (1_000_000_000, 0));
        assert_eq!(Rate { per_second: 0, burst: 0 }.bucket(), (1_000_000_000, 0));
        assert_eq!(Rate { per_second: 3, burst: 100 }.share(8), Rate { per_second: 1, burst: 12 });
    }

    #[test]
    fn no_limit_is_an_interval_of_zero() {
        let settings = Settings { syn: None, ..Settings::default() };
        let config = settings.config(3, 4, 2);
        assert_eq!((config.syn_interval_ns, config.generation, config.seed), (0, 3, 4));
        assert_eq!(config.new_source_interval_ns, 8_000_000);
        assert!(config.returning_packets <= u32::from(gateway_common::GATE_COUNT), "cells count no further");
    }
}
