//! The one test binary: a module a scenario.

mod aiosmtpd;
mod bodies;
mod clients;
mod command_line;
mod confused;
mod dialogs;
mod driver;
mod exim;
mod fault_table;
mod front_door;
mod haraka;
mod names;
mod opensmtpd;
mod postfix;
