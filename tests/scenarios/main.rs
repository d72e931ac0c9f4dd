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
mod opensmtpd;
mod postfix;
mod proof_local;
mod proof_nmap;
mod proof_postfix;
mod proof_servers;
mod proof_standing;
