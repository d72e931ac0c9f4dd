//! The one test binary: a module a scenario.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dialogs;
mod fault_table;
mod invariants;
mod split;
