//! Numbers that are not counted but looked up when somebody asks: each is declared here, and sampled by who holds the state.

use super::declare::{Declaration, Kind};

/// A number at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What it is.
    pub of: &'static Declaration,
    /// In the order of the declaration's labels.
    pub labels: Vec<String>,
    /// In the declaration's unit.
    pub value: f64,
}

macro_rules! looked_up {
    ($($(#[doc = $help:literal])+ $constant:ident: $kind:ident = $name:literal [$($label:literal),*],)+) => {
        $($(#[doc = $help])+
        pub const $constant: Declaration = Declaration {
            name: $name, kind: Kind::$kind, labels: &[$($label),*], help: concat!($($help),+).trim_ascii(),
        };)+

        /// Every one.
        pub const DECLARATIONS: &[Declaration] = &[$($constant,)+];
    };
}

looked_up! {
    /// 1, with the version that runs.
    BUILD: Gauge = "build_info" ["version"],
    /// 1, with a digest of the configuration in force: it differs where configurations do.
    CONFIG: Gauge = "config_info" ["digest"],
    /// When the gateway started, in seconds since 1970.
    START_TIME: Gauge = "start_time_seconds" [],
    /// 1 while the gateway accepts and a backend is well; 0 otherwise, and while it drains.
    READY: Gauge = "ready" [],
    /// Sessions that go on.
    SESSIONS: Gauge = "sessions" [],
    /// The limit of sessions that is set.
    SESSIONS_MAX: Gauge = "sessions_limit" [],
    /// Bans in force.
    BANS: Gauge = "bans" [],
    /// 1 if the backend is well, else 0.
    BACKEND_HEALTHY: Gauge = "backend_healthy" ["backend"],
    /// 1 for the verdict of the relay proof that the backend has, 0 for the others.
    BACKEND_PROOF: Gauge = "backend_proof" ["backend", "verdict"],
    /// When the backend was last proven, in seconds since 1970.
    BACKEND_PROVEN: Gauge = "backend_proof_time_seconds" ["backend"],
    /// Messages by the route that they took and by how they ended, where there are routes; `none` is mail that no route fits.
    ROUTE_MESSAGES: Counter = "route_messages_total" ["route", "outcome"],
    /// Recipients that were not taken, by route and by cause: `parted` ones come in a message of their own.
    ROUTE_NOT_TAKEN: Counter = "route_recipients_not_taken_total" ["route", "cause"],
    /// Sessions that are over, by the route that they took last.
    ROUTE_SESSIONS: Counter = "route_sessions_total" ["route"],
    /// Whole days until a certificate in use ends, by its place in `tls.certificates`, counted from 1; negative once it is over.
    CERTIFICATE_DAYS: Gauge = "certificate_days_left" ["certificate"],
    /// Things that need the administrator, as `status` names them.
    PROBLEMS: Gauge = "problems" ["severity"],
    /// 1 for the mode that the kernel side has on an interface.
    KERNEL_ATTACHED: Gauge = "kernel_attached" ["interface", "mode"],
    /// Packets to the listeners' ports that the kernel side saw.
    KERNEL_PACKETS: Counter = "kernel_packets_total" [],
    /// New connections that the kernel side saw being tried.
    KERNEL_SYNS: Counter = "kernel_syns_total" [],
    /// Packets that the kernel side dropped, by cause.
    KERNEL_DROPPED: Counter = "kernel_dropped_total" ["cause"],
    /// Verdicts that could not be written to the kernel.
    KERNEL_FAILED_WRITES: Counter = "kernel_failed_writes_total" [],
    /// Log lines that were lost because nobody read fast enough.
    LOG_LINES_LOST: Counter = "log_lines_lost_total" [],
    /// Events that came faster than they were taken over.
    EVENTS_LOST: Counter = "events_lost_total" [],
    /// Memory that the gateway holds.
    MEMORY: Gauge = "resident_memory_bytes" [],
    /// Files and sockets that the gateway has open.
    OPEN_FILES: Gauge = "open_files" [],
}

impl Sample {
    /// Without labels.
    pub fn plain(of: &'static Declaration, value: f64) -> Self {
        Self { of, labels: Vec::new(), value }
    }

    /// With these labels' values.
    pub fn labelled<const N: usize>(of: &'static Declaration, labels: [&str; N], value: f64) -> Self {
        Self { of, labels: labels.map(str::to_owned).into(), value }
    }
}

/// A count as a sample's value.
#[expect(clippy::cast_precision_loss, reason = "2^53 is enough")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::counters;
    use super::*;

    /// What every monitoring system expects of names.
    #[test]
    fn declarations_are_sound() {
        let all: Vec<_> = counters::DECLARATIONS.iter().chain(DECLARATIONS).collect();
        let names: HashSet<_> = all.iter().map(|declaration| declaration.name).collect();
        assert_eq!(names.len(), all.len(), "each name once");
        for declaration in all {
            let Declaration { name, kind, labels, help } = declaration;
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(help.ends_with('.') && !help.contains("  "), "{name}: {help}");
            for personal in ["address", "source", "client", "domain", "mailbox", "peer", "host"] {
                assert!(!labels.contains(&personal), "{name} may not have the label {personal}");
            }
        }
    }
}
