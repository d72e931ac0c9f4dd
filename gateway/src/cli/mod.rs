//! The command line: arguments to an exit code. Each verb says what went wrong in one sentence on standard error.
//!
//! Exit codes are a contract: 0 done, 1 failed, 2 refused or bad arguments, 3 not running, 78 bad configuration (`EX_CONFIG` of
//! sysexits.h); those of `selftest` and `status --check` are their verdicts.

mod backend;
mod bans;
mod cert;
mod certificates;
mod check;
mod demo;
mod events;
mod failure;
mod log;
mod network;
mod notify;
mod privileges;
mod reload;
mod route;
mod run;
mod selftest;
mod sessions;
mod sink;
mod socket;
mod status;
mod top;
mod trace;
mod upgrade;
mod watch;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::service;

use failure::{BAD_CONFIG, ConfigArgument, Failure, load};

/// An SMTP gateway that tells the mail server behind it who the client is.
#[derive(Debug, Parser)]
#[command(name = "smtp-gateway", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run in the foreground; prints `ready` once every listener accepts
    Run(run::RunArguments),
    /// Read the configuration and list every fault in it
    Check(ConfigArgument),
    /// Show what the running gateway is doing
    ///
    /// Exit codes of --check: 0 ok, 1 warning, 2 critical, 3 unknown.
    Status(status::StatusArguments),
    /// Prove now that the mail servers behind the gateway relay for nobody
    ///
    /// Exit codes: 0 safe, 1 trust was found, 2 inconclusive, 3 it could not be run.
    Selftest(selftest::SelftestArguments),
    /// Keep an address or a network out for a time
    Ban(bans::BanArguments),
    /// Let a banned address or network in again
    Unban(bans::UnbanArguments),
    /// Show who is banned, why, and until when
    Bans(bans::BansArguments),
    /// Have the running gateway read its configuration again; sessions go on by the old one
    ///
    /// Exit codes: 0 done, 78 the configuration is faulty, 1 it could not be done; unless 0, nothing was changed.
    Reload(reload::ReloadArguments),
    /// Have another process take over: of the program that is installed now, and by the configuration as it is now
    ///
    /// Nobody notices: it serves before the other one stops accepting, and that one ends the sessions that it has. Exit codes:
    /// 0 done, 78 the configuration is faulty, 1 it could not be done; unless 0, the gateway that ran goes on.
    Upgrade(upgrade::UpgradeArguments),
    /// Say which backend gets mail for a recipient, and by which route
    Route(route::RouteArguments),
    /// Show the busiest sources; on a terminal again every second, until interrupted
    Top(top::TopArguments),
    /// Show what happened lately: bans, refusals, verdicts of the relay proof, backends that come and go
    Events(events::EventsArguments),
    /// Show who is connected, or end a session
    Sessions(sessions::SessionsArguments),
    /// Follow one client's dialog with the gateway, live; messages and credentials are not shown
    Trace(trace::TraceArguments),
    /// Change how much the running gateway logs
    Log(log::LogArguments),
    /// Take a mail server out before somebody works on it, and back in
    Backend(backend::BackendArguments),
    /// The routing that backends with identity = "transparent" need
    Network(network::NetworkArguments),
    /// A small mail server to try the gateway with; it says who it believes each client is
    Sink(sink::SinkArguments),
    /// Make a self-signed certificate for a first start; never over an existing file
    Cert(cert::CertArguments),
    /// Show the certificates in use: names, issuer, days left, what a DANE record holds
    Certificates(certificates::CertificatesArguments),
    /// Gateway and sink on loopback, one message through
    Demo(demo::DemoArguments),
}

/// The arguments' definition, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Check(ConfigArgument { config }) => check(&config),
        Verb::Status(arguments) => return exit_code(status::status(&arguments)),
        Verb::Selftest(arguments) => return exit_code(selftest::selftest(&arguments)),
        Verb::Ban(arguments) => bans::ban(&arguments),
        Verb::Unban(arguments) => bans::unban(&arguments),
        Verb::Bans(arguments) => bans::bans(&arguments),
        Verb::Reload(arguments) => reload::reload(&arguments),
        Verb::Upgrade(arguments) => upgrade::upgrade(&arguments),
        Verb::Route(arguments) => route::route(&arguments),
        Verb::Top(arguments) => top::top(&arguments),
        Verb::Events(arguments) => events::events(&arguments),
        Verb::Sessions(arguments) => sessions::sessions(&arguments),
        Verb::Trace(arguments) => trace::trace(&arguments),
        Verb::Log(arguments) => log::log(&arguments),
        Verb::Backend(arguments) => backend::backend(&arguments),
        Verb::Network(arguments) => network::network(&arguments),
        Verb::Sink(arguments) => sink::sink(arguments),
        Verb::Cert(arguments) => cert::cert(&arguments),
        Verb::Certificates(arguments) => certificates::certificates(&arguments),
        Verb::Demo(arguments) => demo::demo(&arguments),
    };
    exit_code(done.map(|()| 0))
}

fn exit_code(done: Result<u8, Failure>) -> ExitCode {
    ExitCode::from(done.unwrap_or_else(|Failure { code, message }| {
        eprintln!("{}", message.trim_end());
        code
    }))
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    service::certificates::check(&config)
        .map_err(|faults| Failure { code: BAD_CONFIG, message: faults.to_string() })?;
    for risk in service::risks(&config).into_iter().chain(service::loops(&config)) {
        eprintln!("warning: {risk}");
    }
    println!("{}: good; {} listener(s), {} backend(s)", path.display(), config.listeners.len(), config.pools.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_sound() {
        super::command().debug_assert();
    }
}
