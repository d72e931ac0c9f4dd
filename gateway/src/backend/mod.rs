//! Backends: where they are, whether they answer, and what they were learned to offer. Knows nothing of clients.

mod health;
mod state;

pub use health::watch;
pub use state::{BackendState, Health};
