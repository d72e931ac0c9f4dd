//! The relay proof: the gateway shows, again and again, that the system is no open relay.
//!
//! Probes are put to each backend (without identity, with a stranger's, with a trusted one) and to the gateway's own
//! listeners, and what comes back is judged by a table. Planning, judging and reporting are pure: values in, values out. Only
//! the runner speaks, through the gateway's own encoders and, for the front door, its own accept path and session core.
//!
//! Nothing is delivered below level 3, an error is never safe, and no proof runs beside another or in a worker's thread, so
//! that it never holds up mail. This room does not know who started it: the command line or the running gateway.

pub mod answer;
mod audit;
mod bait;
mod canary;
pub mod cases;
mod conversation;
mod door;
pub mod judge;
mod login;
pub mod mend;
mod pace;
mod passes;
pub mod plan;
pub mod probe;
mod progress;
mod prove;
pub mod report;
mod run;
mod schedule;
pub mod text;
mod words;

pub use passes::Proof;
pub use probe::State;
pub use progress::{Progress, Watcher};
pub use prove::Prover;
pub use schedule::{LastProof, ProofRecord, Schedule};
