//! The metrics listener: numbers for monitoring systems, two answers for probes, and a page for people, over HTTP.
//!
//! It runs on the runtime that serves no clients, and only reads: GET is the only method, and what it shows is a snapshot
//! that it is given. Everything is bounded (connections, headers, time), for whatever happens here must not be felt by mail.
//! Whoever can reach it sees who the clients are, so it is off unless `metrics.address` says where it listens; the `Host`
//! of a request must be an address or a known name, or a page elsewhere could have a browser read it (DNS rebinding).
//!
//! Must not know: sessions, backends, the kernel; how a number comes about.

mod answer;
mod exposition;
mod host;
mod page;
mod server;

use crate::observe::counters::Totals;
use crate::observe::gauges::Sample;

pub use exposition::{Format, expose};
pub use server::{BindError, MetricsServer, MetricsSocket};

/// Why no mail is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It is on its way down.
    #[error("it is going down")]
    Draining,
    /// Nobody would take it.
    #[error("no backend is well")]
    NoBackend,
}

/// Whoever knows what there is to show. Its methods may take a moment, and are called where that holds up nobody.
pub trait Reporter: Send + Sync + 'static {
    /// What workers counted.
    fn totals(&self) -> Totals;
    /// What is looked up.
    fn samples(&self) -> Vec<Sample>;
    /// Whether mail is taken.
    ///
    /// # Errors
    /// It is not; why.
    fn ready(&self) -> Result<(), NotReady>;
    /// What the page shows, as one JSON document.
    fn page_state(&self) -> String;
}
