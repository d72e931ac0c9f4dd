//! `upgrade`: another process, of the program that is installed now and by the configuration as it is now, takes the place of
//! the one that runs.
//!
//! A successor needs the privileges that the first start had, and under systemd the unit's sandbox, which only systemd can put
//! a process into: there the verb has the unit reloaded, whose ExecReload= is `reload --or-upgrade`, and that one starts the
//! successor from within. Elsewhere the verb starts it itself.
//!
//! The successor is no child of the verb but init's, through one that starts it and ends: systemd notices the end of its own
//! children only.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::control::{UpgradeAnswer, ask_status, ask_upgrade, own_unit};

use super::failure::{DEFAULT_CONFIG, FAILED, Failure, load};

#[derive(Debug, Args)]
pub(super) struct UpgradeArguments {
    /// The configuration that the successor runs by
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The control socket of the gateway that runs, if it is not the one in the configuration
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn upgrade(arguments: &UpgradeArguments) -> Result<(), Failure> {
    let UpgradeArguments { config, socket } = arguments;
    let socket = socket.clone().map_or_else(|| load(config).map(|config| config.control.socket), Ok)?;
    succeed(&ask_upgrade(&socket)?, &socket, config)
}

/// Has a successor take over from the gateway behind this socket, in the way that it told.
pub(super) fn succeed(how: &UpgradeAnswer, socket: &Path, config: &Path) -> Result<(), Failure> {
    match how.unit.as_deref().filter(|unit| own_unit().as_deref() != Some(unit)) {
        Some(unit) => by_systemd(unit, how, socket)?,
        None => start(how, socket, config)?,
    }
    let told = format!("upgraded; process {} ends the sessions that it has", how.process);
    writeln!(io::stdout(), "{told}").map_err(Failure::new)
}

fn by_systemd(unit: &str, how: &UpgradeAnswer, socket: &Path) -> Result<(), Failure> {
    let status = Command::new("systemctl").args(["reload", unit]).status();
    let status = status.map_err(|error| Failure::new(format_args!("systemctl cannot be started: {error}")))?;
    if !status.success() {
        return Err(Failure::new(format_args!(
            "the gateway that ran goes on as before; why, the log says: journalctl -u {unit} -n 20"
        )));
    }
    if ask_status(socket)?.process == how.process {
        return Err(Failure::new(format_args!(
            "systemd reloaded {unit}, and the process is the same; the unit must have `ExecReload=/usr/bin/smtp-gateway reload \
             --or-upgrade`, as the one of the package has"
        )));
    }
    Ok(())
}

/// Starts the successor, and waits until it serves. What it says before goes where this process's own does.
fn start(how: &UpgradeAnswer, socket: &Path, config: &Path) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::new(format_args!("a successor cannot be started: {error}"));
    let (said, saying) = io::pipe().map_err(cannot)?;
    let mut begin = Command::new(std::env::current_exe().map_err(cannot)?);
    begin.args(["run", "--begin", "--take-over"]).arg(socket);
    begin.arg("-c").arg(std::path::absolute(config).map_err(cannot)?);
    begin.envs(how.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null()).stdout(saying);
    let begun = begin.status().map_err(cannot)?;
    // With it this process's copy of the pipe goes, whose end is then the successor's.
    drop(begin);
    if !begun.success() {
        return Err(Failure::new("a successor cannot be started"));
    }
    let mut code = FAILED;
    for line in BufReader::new(said).lines() {
        let line = line.map_err(cannot)?;
        match line.strip_prefix(FAILED_WITH) {
            None if line == "ready" => return Ok(()),
            None => {}
            Some(told) => code = told.parse().unwrap_or(FAILED),
        }
    }
    Err(Failure {
        code,
        message: "the successor did not come to serve; the gateway that ran goes on as before".to_owned(),
    })
}

/// Before the exit code of a successor that fails, on its standard output.
const FAILED_WITH: &str = "failed with ";

/// Starts the process that takes over, and leaves it to init.
pub(super) fn begin(socket: &Path, config: &Path) -> Result<(), Failure> {
    let mut successor = Command::new(std::env::current_exe().map_err(Failure::new)?);
    successor.args(["run", "--take-over"]).arg(socket).arg("-c").arg(config);
    successor.spawn().map(drop).map_err(Failure::new)
}

/// Tells whoever started this successor how it ends.
pub(super) fn tell_failure(failure: &Failure) {
    // Who does not listen any more sees the end.
    let _ = writeln!(io::stdout(), "{FAILED_WITH}{}", failure.code);
}
