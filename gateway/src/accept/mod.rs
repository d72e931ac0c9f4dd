//! Connections come in here: listeners, admission, and the way down.
//!
//! Each worker is one thread with its own current-thread runtime and its own `SO_REUSEPORT` socket for every listener, so
//! that a session lives and dies on the core that accepted it and no two cores share a queue. This room decides whether a
//! connection becomes a session; it knows nothing of what is said on one.

mod accepting;
mod admission;
mod bind;
mod crowd;
mod front_door;
mod gate;
mod listener;
mod pulse;
mod workers;

pub use admission::{Admission, Refusal};
pub use bind::{BindError, BoundListener, bind};
pub use front_door::FrontDoor;
pub use gate::{Entry, Gate, Parts};
pub use listener::Listener;
pub use pulse::Pulse;
pub use workers::{Caller, Workers};
