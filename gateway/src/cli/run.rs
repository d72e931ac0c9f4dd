//! `run`: the gateway in the foreground, from its configuration to its drain.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::{self, Config};
use crate::control::ReloadAnswer;
use crate::observe::events::{self, EventKind};
use crate::observe::log;
use crate::service::{Asked, Bound, Gateway, Inheritance, Occasion, Reloaded};

use super::failure::{BAD_CONFIG, ConfigArgument, Failure, load};
use super::{notify, privileges, upgrade, watchdog};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Take the place of the gateway behind this control socket; `upgrade` starts a successor so
    #[arg(long, value_name = "SOCKET", hide = true)]
    take_over: Option<PathBuf>,
    /// Only start the process that does it
    #[arg(long, hide = true, requires = "take_over")]
    begin: bool,
}

pub(super) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let RunArguments { config: ConfigArgument { config }, take_over, begin } = arguments;
    match take_over {
        None => run_by(config, None),
        Some(socket) if *begin => upgrade::begin(socket, config),
        Some(socket) => run_by(config, Some(socket)).inspect_err(upgrade::tell_failure),
    }
}

fn run_by(path: &Path, take_over: Option<&Path>) -> Result<(), Failure> {
    if take_over.is_some() {
        // Whoever ends the session that an upgrade was asked for in must not end the gateway.
        rustix::process::setsid().map_err(Failure::new)?;
    }
    let config = load(path)?;
    let log = log::init(&config.log).map_err(Failure::new)?;
    privileges::raise_open_files(config.limits.sessions);
    let inheritance = take_over.map(Inheritance::ask).transpose().map_err(Failure::new)?;
    let bound = Bound::new(config, inheritance).map_err(|error| match error.is_of_the_configuration() {
        true => Failure { code: BAD_CONFIG, message: error.to_string() },
        false => Failure::new(error),
    })?;
    let mut bound = bound.of_file(path);
    if let Some(remains) = privileges::drop_all(&bound).map_err(privileges::DropError::into_failure)? {
        bound.warn(remains);
    }
    log.start().map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(serve(bound, path))
}

async fn serve(bound: Bound, path: &Path) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::new)?;
    let addresses = bound.addresses();
    let mut gateway = bound.start().await.map_err(Failure::new)?;
    for address in addresses {
        info!(%address, "listening");
    }
    say_ready();
    match gateway.inherited_output() {
        // The service manager knows that it is ready; that it has another process, that one tells.
        Some(output) => speak_where_the_other_did(&output),
        None => notify::service_manager("READY=1"),
    }
    let watchdog = tokio::spawn(watchdog::watch(gateway.all_beat()));
    loop {
        tokio::select! {
            end = signals.any() => match end {
                true => break,
                false => log_reload(&reload(&mut gateway, path).await),
            },
            Some(asked) = gateway.asked() => match asked {
                Asked::Reload(answer) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(reload(&mut gateway, path).await);
                }
                Asked::Servers(config) => {
                    let answer = put_in_force(&mut gateway, *config, Occasion::Servers).await;
                    if let ReloadAnswer::Faulty { why } | ReloadAnswer::Failed { why } = answer {
                        warn!(why, "DNS names other servers, which cannot be used: those that it named before are");
                    }
                }
                Asked::Upgrade(candidate) => {
                    let handed_over = tokio::select! {
                        done = gateway.hand_over(candidate) => done,
                        // Whoever wants it to end wants no successor.
                        () = signals.next() => break,
                    };
                    match handed_over {
                        Ok(departure) => {
                            watchdog.abort();
                            // The other's watchdog speaks after a while only: what this one still had must not run out.
                            notify::service_manager(&format!("MAINPID={}\nWATCHDOG=1", departure.process()));
                            gateway.leave(departure, async || signals.next().await).await;
                            return Ok(());
                        }
                        Err(error) => warn!(%error, "nobody took over; this process goes on"),
                    }
                }
            },
        }
    }
    notify::service_manager("STOPPING=1");
    // Asked twice, the administrator is in a hurry.
    gateway.drain(signals.next()).await;
    Ok(())
}

/// The log goes on where that of the process before went, and not where the upgrade was asked for.
fn speak_where_the_other_did([output, error]: &[OwnedFd; 2]) {
    let taken = rustix::stdio::dup2_stdout(output).and_then(|()| rustix::stdio::dup2_stderr(error));
    if let Err(error) = taken {
        warn!(%error, "standard output and error of the process before cannot be taken over");
    }
}

/// Reads the file again, and puts what it says in force: all of it or nothing.
async fn reload(gateway: &mut Gateway, path: &Path) -> ReloadAnswer {
    notify::service_manager(&notify::reloading());
    let file = path.to_owned();
    // Lists of domains may be long, and the log and the health checks live on this thread.
    let answer = match tokio::task::spawn_blocking(move || config::load(&file)).await {
        Ok(Ok(config)) => put_in_force(gateway, config, Occasion::Wanted).await,
        Ok(Err(error)) => ReloadAnswer::Faulty { why: error.to_string() },
        Err(error) => ReloadAnswer::Failed { why: error.to_string() },
    };
    notify::service_manager("READY=1");
    if let ReloadAnswer::Faulty { why } | ReloadAnswer::Failed { why } = &answer {
        let text = format_args!("not reloaded, the old one is in force: {why}");
        events::emit(EventKind::Reload, "configuration", text);
    }
    answer
}

async fn put_in_force(gateway: &mut Gateway, config: Config, occasion: Occasion) -> ReloadAnswer {
    if let Err(error) = privileges::check(&config) {
        return ReloadAnswer::Failed {
            why: format!("{error}; a running gateway cannot get it back, so this takes `smtp-gateway upgrade`"),
        };
    }
    privileges::raise_open_files(config.limits.sessions);
    match gateway.reload(config, occasion).await {
        Ok(Reloaded { digest, kept }) => ReloadAnswer::Reloaded { digest, kept },
        Err(error) if error.is_of_the_configuration() => ReloadAnswer::Faulty { why: error.to_string() },
        Err(error) => ReloadAnswer::Failed { why: error.to_string() },
    }
}

/// Nobody else hears what came of a signal.
fn log_reload(answer: &ReloadAnswer) {
    if let ReloadAnswer::Faulty { why } | ReloadAnswer::Failed { why } = answer {
        warn!(why, "not reloaded: the old configuration is in force");
    }
}

/// Says on standard output that every listener accepts. Without somebody who reads there the log still tells.
fn say_ready() {
    let stdout = io::stdout();
    let mut room = [PollFd::new(&stdout, PollFlags::OUT)];
    // A pipe that is full would be waited for, and nothing else would be done meanwhile.
    match rustix::event::poll(&mut room, Some(&Timespec::default())) {
        Ok(0) => warn!("cannot print `ready`: nobody reads standard output"),
        Ok(_) => {
            if let Err(error) = writeln!(stdout.lock(), "ready") {
                warn!(%error, "cannot print `ready`");
            }
        }
        Err(error) => warn!(%error, "cannot print `ready`"),
    }
}

/// SIGTERM and SIGINT end it, SIGHUP has it read its configuration again.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Whether the next one is to end it; the other has it reload.
    async fn any(&mut self) -> bool {
        tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            _ = self.hangup.recv() => false,
        }
    }

    /// The next one that is to end it.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
