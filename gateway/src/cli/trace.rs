//! `trace`: one client's dialog with the gateway, live.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::control::{ask_trace, render_trace};

use super::bans::target;
use super::failure::Failure;
use super::socket::{SocketArguments, Stdout, shown};

/// Between two questions; a trace that nobody renews ends after five seconds.
const INTERVAL: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// The client: an address such as 192.0.2.1, or a network; an IPv6 address stands for its /64
    #[arg(value_name = "ADDRESS|PREFIX", value_parser = target)]
    client: IpNet,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn trace(TraceArguments { socket, client, json }: &TraceArguments) -> Result<(), Failure> {
    let socket = socket.path()?;
    let mut after = None;
    loop {
        let list = ask_trace(&socket, *client, after)?;
        after = Some(list.last);
        let mut stdout = io::stdout().lock();
        let written = list.lines.iter().try_for_each(|line| match json {
            true => writeln!(stdout, "{}", serde_json::to_string(line)?),
            false => writeln!(stdout, "{}", render_trace(line)),
        });
        if shown(written.and_then(|()| stdout.flush()))? == Stdout::Closed {
            return Ok(());
        }
        drop(stdout);
        std::thread::sleep(INTERVAL);
    }
}
