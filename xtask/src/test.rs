//! `cargo xtask test`: peers, build, every test.
//!
//! A peer that cannot be had is a warning here, and a skip in the scenarios that need it: a laptop without a network can
//! still run the rest. `SMTP_GATEWAY_TESTS=all` makes either a failure, for the machine whose word counts.

use std::process::Command;

use crate::command::{repository, visible};
use crate::peers;

/// Whether a skipped scenario is a failure.
pub(crate) fn everything_is_required() -> bool {
    std::env::var_os("SMTP_GATEWAY_TESTS").is_some_and(|value| value == "all")
}

/// Arguments are handed to `cargo test`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let missing = peers::provide_all();
    if !missing.is_empty() && everything_is_required() {
        return Err(format!("SMTP_GATEWAY_TESTS=all, but these peers are missing: {}", missing.join(", ")));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    visible(Command::new(&cargo).arg("build").current_dir(repository()))?;
    visible(Command::new(&cargo).args(["test", "--workspace"]).args(arguments).current_dir(repository()))
}
