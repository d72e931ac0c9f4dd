//! `log`: how much the running gateway logs.

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;

use crate::config::parse_duration;
use crate::control::ask_log;
use crate::observe::show::span;

use super::failure::Failure;
use super::socket::{SocketArguments, shown};

#[derive(Debug, Args)]
pub(super) struct LogArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// `error`, `warn`, `info`, `debug` or `trace`, for a room of the program too: `info,proof=debug`; `configured` for
    /// what the configuration says
    #[arg(value_name = "LEVEL")]
    level: String,
    /// How long, such as 10m; then it is as configured again
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Option<Duration>,
}

pub(super) fn log(LogArguments { socket, level, length }: &LogArguments) -> Result<(), Failure> {
    let status = ask_log(&socket.path()?, level, length.map(|length| length.as_secs()))?;
    let time = status.seconds.map(|seconds| format!(", for {}", span(seconds))).unwrap_or_default();
    shown(writeln!(io::stdout().lock(), "the log's level is {}{time}", status.level)).map(drop)
}

fn length(text: &str) -> Result<Duration, String> {
    let help = "write a whole number and `s`, `m` or `h`, such as 10m";
    parse_duration(text).filter(|length| length.as_secs() > 0).ok_or_else(|| help.to_owned())
}
