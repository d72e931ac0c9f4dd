//! Decisions as plain functions: may this recipient be relayed, is this message looping, has this client used up its
//! budget, has this source earned a ban. Pure: values in, a verdict out; no I/O, no clock.

pub mod bans;
pub mod budget;
pub mod forwarders;
pub mod handshakes;
pub mod header;
pub mod offences;
pub mod refused_domains;
pub mod relay_guard;
pub mod reputation;
