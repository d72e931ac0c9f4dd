//! `events`: what happened lately, and what happens.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;

use crate::control::{ask_events, render_event};

use super::failure::Failure;
use super::socket::{SocketArguments, Stdout, shown};

/// Between two questions of `--follow`.
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// Go on with what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn events(EventsArguments { socket, follow, json }: &EventsArguments) -> Result<(), Failure> {
    let socket = socket.path()?;
    let mut after = 0;
    loop {
        let events = ask_events(&socket, after)?.events;
        let mut stdout = io::stdout().lock();
        let written = events.iter().try_for_each(|event| match json {
            true => writeln!(stdout, "{}", serde_json::to_string(event)?),
            false => writeln!(stdout, "{}", render_event(event)),
        });
        if shown(written.and_then(|()| stdout.flush()))? == Stdout::Closed || !follow {
            return Ok(());
        }
        after = events.last().map_or(after, |event| event.number);
        std::thread::sleep(INTERVAL);
    }
}
