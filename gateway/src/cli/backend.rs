//! `backend`: takes servers out before somebody works on them, and back in.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};

use crate::control::ask_drain;

use super::failure::Failure;
use super::socket::{SocketArguments, shown};

#[derive(Debug, Args)]
pub(super) struct BackendArguments {
    #[command(subcommand)]
    verb: BackendVerb,
}

#[derive(Debug, Subcommand)]
enum BackendVerb {
    /// Give a backend, or one of its servers, no more sessions; those it has go on
    Drain(ServerArguments),
    /// Give it sessions again
    Undrain(ServerArguments),
}

#[derive(Debug, Args)]
struct ServerArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// The backend's name in the configuration
    #[arg(value_name = "NAME")]
    backend: String,
    /// Only this one of its servers: the name, or the place in the list, counted from 1
    #[arg(long, value_name = "SERVER")]
    server: Option<String>,
}

pub(super) fn backend(arguments: &BackendArguments) -> Result<(), Failure> {
    let (ServerArguments { socket, backend, server }, draining) = match &arguments.verb {
        BackendVerb::Drain(arguments) => (arguments, true),
        BackendVerb::Undrain(arguments) => (arguments, false),
    };
    let status = ask_drain(&socket.path()?, backend, server.as_deref(), draining)?;
    let mut out = io::stdout().lock();
    for server in &status.servers {
        let what = if draining { "drained: it gets no more sessions, and those it has go on" } else { "gets sessions" };
        let written = writeln!(out, "{server} {}{what}", if draining { "is " } else { "" });
        shown(written)?;
    }
    Ok(())
}
