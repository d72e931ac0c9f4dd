//! Who the client is, and how the backend is told.
//!
//! Two addresses exist and never convert silently: [`PeerAddr`] is whoever holds the other end of the socket, and
//! [`ClientAddr`] is whom the gateway believes the client to be. They are the same host unless a listed load balancer
//! said otherwise in a PROXY header. Confusing them is the fault this product exists to end.
//!
//! All but [`names`] and [`transparent`] is pure: encoders and parsers of the headers and commands that carry an identity.

mod addr;
pub mod host;
pub mod names;
pub mod proxy_in;
pub mod proxy_out;
mod source;
pub mod transparent;
pub mod xclient;

pub use addr::{ClientAddr, PeerAddr};
pub use source::Source;
