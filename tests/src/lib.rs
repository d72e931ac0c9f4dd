//! Helpers shared by the scenarios of the one test binary: transcripts, peers, sockets.

pub mod dialog;
pub mod kernel;
pub mod peers;
pub mod readme;
