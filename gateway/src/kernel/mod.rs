//! The kernel side: the only room that knows BPF, and the only writer of its maps.

mod events;
mod reader;
mod steer;
mod tables;
mod time;
mod translate;
mod writer;

pub use reader::{Reader, SourceAccount, Totals};
pub use steer::{SteerError, Steering};
