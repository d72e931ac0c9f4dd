//! The one test binary: a module a scenario.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod addresses;
mod aiosmtpd;
mod bans;
mod bodies;
mod certificates;
mod clients;
mod command_line;
mod confused;
mod dialogs;
mod driver;
mod exim;
mod failover;
mod fault_table;
mod front_door;
mod fuzz_corpora;
mod haraka;
mod invariants;
mod kernel_program;
mod kernel_side;
mod memory;
mod names;
mod observe;
mod opensmtpd;
mod pools;
mod postfix;
mod privileges;
mod proof_local;
mod proof_nmap;
mod proof_postfix;
mod proof_servers;
mod proof_standing;
mod readme;
mod reload;
mod split;
mod submission;
mod tls;
mod tls_servers;
mod trace_header;
mod transparent;
mod upgrade;
mod upgrade_kernel;
