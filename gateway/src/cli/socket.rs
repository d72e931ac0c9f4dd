//! What every verb shares that speaks to a running gateway: which one, and what becomes of its answer.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Control;
use crate::control::AskError;

use super::failure::{DEFAULT_CONFIG, FAILED, Failure, NOT_RUNNING, REFUSED, load};

#[derive(Debug, Args)]
pub(super) struct SocketArguments {
    /// The configuration whose control socket is asked
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The control socket to ask
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

impl SocketArguments {
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        match self {
            Self { socket: Some(socket), .. } => Ok(socket.clone()),
            Self { config: Some(config), .. } => Ok(load(config)?.control.socket),
            _ if Path::new(DEFAULT_CONFIG).exists() => Ok(load(Path::new(DEFAULT_CONFIG))?.control.socket),
            _ => Ok(Control::default().socket),
        }
    }

    /// The configuration that is meant.
    pub(super) fn config(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let code = match error {
            AskError::NotRunning(_) => NOT_RUNNING,
            AskError::Refused(_) => REFUSED,
            AskError::NoPermission(_) | AskError::System(..) | AskError::NotAnswered(_) | AskError::Garbled(_) => {
                FAILED
            }
        };
        Self { code, message: error.to_string() }
    }
}

/// Standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stdout {
    Open,
    /// Whoever read it has seen enough, which is no fault.
    Closed,
}

/// What came of writing to standard output.
pub(super) fn shown(written: io::Result<()>) -> Result<Stdout, Failure> {
    match written {
        Ok(()) => Ok(Stdout::Open),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Stdout::Closed),
        Err(error) => Err(Failure::new(error)),
    }
}
