//! `sessions`: who is connected; `sessions kill` ends one.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::control::{SessionList, ask_kill, ask_sessions, render_sessions};

use super::failure::Failure;
use super::socket::{SocketArguments, Stdout, shown};

/// Between two pages of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SessionsArguments {
    #[command(subcommand)]
    verb: Option<SessionsVerb>,
    #[command(flatten)]
    list: ListArguments,
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// How many, the oldest first
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 200)]
    limit: usize,
    /// Again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SessionsVerb {
    /// End a session: its client is told 421
    Kill {
        #[command(flatten)]
        socket: SocketArguments,
        /// As `sessions` shows it
        #[arg(value_name = "ID")]
        session: u64,
    },
}

pub(super) fn sessions(SessionsArguments { verb, list }: &SessionsArguments) -> Result<(), Failure> {
    match verb {
        None => show_all(list),
        Some(SessionsVerb::Kill { socket, session }) => {
            let ended = ask_kill(&socket.path()?, *session)?;
            let mut stdout = io::stdout().lock();
            shown(writeln!(stdout, "session {} of {} is ended", ended.id, ended.client)).map(drop)
        }
    }
}

fn show_all(arguments: &ListArguments) -> Result<(), Failure> {
    let socket = arguments.socket.path()?;
    loop {
        let list = ask_sessions(&socket, arguments.limit)?;
        if shown(show(&list, arguments))? == Stdout::Closed || !arguments.watch {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn show(list: &SessionList, arguments: &ListArguments) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if arguments.json {
        return writeln!(stdout, "{}", serde_json::to_string(list)?);
    }
    if arguments.watch && stdout.is_terminal() {
        // Home, and clear what is below.
        stdout.write_all(b"\x1b[H\x1b[J")?;
    }
    stdout.write_all(render_sessions(list, stdout.is_terminal()).as_bytes())?;
    stdout.flush()
}
