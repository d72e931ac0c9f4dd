//! Backends: where they are, whether they answer, and what they were learned to offer. Of clients it knows at most
//! the address that a connection is to come from.

mod busy;
mod choice;
mod connect;
mod connector;
mod health;
mod load;
mod mechanisms;
mod pool;
pub mod recognise;
mod srv;
mod state;

pub use connect::LeadsBack;
pub use connector::{Connectors, connector};
pub use health::watch;
pub use mechanisms::LoginMechanisms;
pub use pool::{Attempts, ChosenServer, Pool};
pub use srv::{SrvProblems, SrvServers};
pub use state::{BackendState, Health};
