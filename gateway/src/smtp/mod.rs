//! SMTP codecs: bytes to meaning and back (RFC 5321 and the extensions offered).
//!
//! Pure: a function here sees bytes and returns values. It knows no socket, no clock, no session state and no policy, so
//! every rule of the wire is a table of inputs and results. Nothing is repaired silently: what is not SMTP is an error
//! that names the fault, because two servers that repair differently are how mail is smuggled.

pub mod address;
pub mod auth;
pub mod body;
pub mod command;
pub mod domains;
pub mod ehlo;
pub mod labels;
pub mod line;
pub mod queue_id;
pub mod reply;
pub mod starttls;
pub mod xtext;
