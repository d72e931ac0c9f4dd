//! `sink`: the development backend in the foreground.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use crate::sink::{self, Fault, Options, SinkIdentity};

use super::failure::Failure;
use super::privileges;

/// Descriptors are raised for this many sessions.
const SESSIONS: usize = 5000;

#[derive(Debug, Args)]
pub(super) struct SinkArguments {
    /// Where it listens; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:2526")]
    listen: SocketAddr,
    /// Its name in greeting and EHLO reply
    #[arg(long, value_name = "NAME", default_value = "sink.localhost")]
    hostname: String,
    /// How it is told who the client is: xclient, proxy-v1, proxy-v2, proxy (either) or none
    #[arg(long, value_name = "MODE", default_value = "xclient")]
    identity: SinkIdentity,
    /// A network whose clients may relay through it; may be given several times
    #[arg(long, value_name = "NETWORK", value_parser = sink::network)]
    trust: Vec<IpNet>,
    /// A network that may use XCLIENT [default: loopback]; may be given several times
    #[arg(long, value_name = "NETWORK", value_parser = sink::network)]
    xclient_from: Vec<IpNet>,
    /// A domain it takes mail for from everybody; may be given several times
    #[arg(long = "local-domain", value_name = "DOMAIN")]
    local_domains: Vec<String>,
    /// Keep messages in this Maildir
    #[arg(long, value_name = "DIRECTORY")]
    maildir: Option<PathBuf>,
    /// Print nothing of sessions and messages
    #[arg(long)]
    quiet: bool,
    /// Print messages only, and nothing of sessions and refusals
    #[arg(long, conflicts_with = "quiet")]
    messages_only: bool,
    /// Err on purpose, such as `eod=451` or `rcpt=close`; may be given several times
    #[arg(long = "fault", value_name = "POINT=ACTION")]
    faults: Vec<Fault>,
}

pub(super) fn sink(arguments: SinkArguments) -> Result<(), Failure> {
    let SinkArguments {
        listen,
        hostname,
        identity,
        trust,
        xclient_from,
        local_domains,
        maildir,
        quiet,
        messages_only,
        faults,
    } = arguments;
    privileges::raise_open_files(SESSIONS);
    let mut options = Options {
        listen,
        hostname,
        identity,
        trust,
        local_domains,
        maildir,
        quiet,
        messages_only,
        faults,
        ..Options::default()
    };
    if !xclient_from.is_empty() {
        options.xclient_from = xclient_from;
    }
    let sink = sink::start(options).map_err(Failure::new)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "ready on {}", sink.address()).map_err(Failure::new)?;
    // It has nothing to finish: a signal ends the process.
    loop {
        std::thread::park();
    }
}
