//! Helpers shared by the scenarios of the one test binary: transcripts, peers, sockets.

#![expect(clippy::missing_errors_doc, reason = "an error of a helper is the sentence with which its test fails")]

pub mod dialog;
pub mod fuzz;
pub mod kernel;
pub mod peers;
pub mod readme;
