//! The one test binary: a module a scenario.

mod dialogs;
mod fault_table;
mod split;
