//! The one test binary: a module a scenario.

mod aiosmtpd;
mod bodies;
mod clients;
mod confused;
mod dialogs;
mod exim;
mod haraka;
mod opensmtpd;
mod postfix;
