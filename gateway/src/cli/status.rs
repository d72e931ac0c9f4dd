//! `status`: what the running gateway is doing.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;

use crate::control::{Status, ask_status, render};

use super::failure::Failure;
use super::socket::{SocketArguments, Stdout, shown};
use super::{check, watch};

/// Between two pages of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// One JSON object instead of a page
    #[arg(long)]
    json: bool,
    /// One line and an exit code for monitoring plugins
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    check: bool,
    /// Live, with keys to sort and to ban; in a pipe a page every second
    #[arg(long)]
    watch: bool,
}

pub(super) fn status(arguments: &StatusArguments) -> Result<u8, Failure> {
    let socket = arguments.socket.path()?;
    if arguments.check {
        return check::check(&socket);
    }
    if arguments.watch && !arguments.json && io::stdout().is_terminal() {
        return watch::watch(&socket).map(|()| 0);
    }
    loop {
        let status = ask_status(&socket)?;
        if shown(show(&status, arguments))? == Stdout::Closed || !arguments.watch {
            return Ok(0);
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn show(status: &Status, arguments: &StatusArguments) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if arguments.json {
        return writeln!(stdout, "{}", serde_json::to_string(status)?);
    }
    stdout.write_all(render(status, stdout.is_terminal()).as_bytes())?;
    if arguments.watch {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}
