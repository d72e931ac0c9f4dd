//! The one test binary: a module a scenario.

mod aiosmtpd;
mod bodies;
mod clients;
mod command_line;
mod confused;
mod dialogs;
mod exim;
mod fault_table;
mod front_door;
mod haraka;
mod kernel_program;
mod opensmtpd;
mod postfix;
