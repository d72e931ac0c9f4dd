//! `top`: the busiest sources, live.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;

use crate::control::{TopList, ask_top, render_top};

use super::failure::Failure;
use super::socket::{SocketArguments, Stdout, shown};

/// Between two pages.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// How many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    /// One page, on a terminal too
    #[arg(long)]
    once: bool,
    /// One JSON object instead of a page
    #[arg(long)]
    json: bool,
}

pub(super) fn top(arguments: &TopArguments) -> Result<(), Failure> {
    let socket = arguments.socket.path()?;
    let live = io::stdout().is_terminal() && !arguments.once && !arguments.json;
    loop {
        let list = ask_top(&socket, arguments.limit)?;
        if shown(show(&list, arguments, live))? == Stdout::Closed || !live {
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
}

fn show(list: &TopList, arguments: &TopArguments, live: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if arguments.json {
        return writeln!(stdout, "{}", serde_json::to_string(list)?);
    }
    if live {
        // Home, and clear what is below.
        stdout.write_all(b"\x1b[H\x1b[J")?;
    }
    stdout.write_all(render_top(list, stdout.is_terminal()).as_bytes())?;
    stdout.flush()
}
