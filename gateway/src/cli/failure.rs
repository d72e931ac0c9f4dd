//! What every verb shares: its exit codes, how it fails, and which configuration it reads.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{self, Config};

/// Where the configuration is unless `-c` says otherwise.
pub(super) const DEFAULT_CONFIG: &str = "/etc/smtp-gateway/gateway.toml";

pub(super) const FAILED: u8 = 1;
pub(super) const REFUSED: u8 = 2;
pub(super) const NOT_RUNNING: u8 = 3;
pub(super) const BAD_CONFIG: u8 = 78;

#[derive(Debug, Args)]
pub(super) struct ConfigArgument {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
}

/// A verb that failed: what to say, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(error: impl Display) -> Self {
        Self { code: FAILED, message: error.to_string() }
    }
}

/// Reads the configuration; exit code 78 if it is faulty.
pub(super) fn load(path: &Path) -> Result<Config, Failure> {
    config::load(path).map_err(|error| Failure { code: BAD_CONFIG, message: error.to_string() })
}
