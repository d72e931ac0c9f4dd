//! `status`: what the running gateway is doing.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::config::Control;
use crate::control::{AskError, Status, ask_status, render};

use super::{DEFAULT_CONFIG, FAILED, Failure, NOT_RUNNING, load};

/// Between two pages of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    /// The configuration whose control socket is asked
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The control socket to ask
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// One JSON object instead of a page
    #[arg(long)]
    json: bool,
    /// Again every second, until interrupted
    #[arg(long)]
    watch: bool,
}

pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let socket = socket(arguments)?;
    loop {
        let status = ask_status(&socket).map_err(|error| Failure {
            code: if matches!(error, AskError::NotRunning(_)) { NOT_RUNNING } else { FAILED },
            message: error.to_string(),
        })?;
        match show(&status, arguments) {
            // Whoever read this has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            shown => shown.map_err(Failure::new)?,
        }
        if !arguments.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn socket(arguments: &StatusArguments) -> Result<PathBuf, Failure> {
    match arguments {
        StatusArguments { socket: Some(socket), .. } => Ok(socket.clone()),
        StatusArguments { config: Some(config), .. } => Ok(load(config)?.control.socket),
        _ if Path::new(DEFAULT_CONFIG).exists() => Ok(load(Path::new(DEFAULT_CONFIG))?.control.socket),
        _ => Ok(Control::default().socket),
    }
}

fn show(status: &Status, arguments: &StatusArguments) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if arguments.json {
        return writeln!(stdout, "{}", serde_json::to_string(status)?);
    }
    let terminal = stdout.is_terminal();
    if arguments.watch && terminal {
        // Home, and clear what is below.
        stdout.write_all(b"\x1b[H\x1b[J")?;
    }
    stdout.write_all(render(status, terminal).as_bytes())?;
    if arguments.watch && !terminal {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}
