//! `run`: the gateway in the foreground, from its configuration to its drain.

use std::io::{self, Write as _};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::observe::log;
use crate::service::Bound;

use super::{BAD_CONFIG, Failure, load, notify, privileges, watchdog};

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    let log = log::init(&config.log).map_err(Failure::new)?;
    privileges::raise_open_files(config.limits.sessions);
    let mut bound = Bound::new(config).map_err(|error| match error.is_of_the_configuration() {
        true => Failure { code: BAD_CONFIG, message: error.to_string() },
        false => Failure::new(error),
    })?;
    if let Some(remains) = privileges::drop_all(&bound).map_err(privileges::DropError::into_failure)? {
        bound.warn(remains);
    }
    log.start().map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(serve(bound))
}

async fn serve(bound: Bound) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::new)?;
    let addresses = bound.addresses();
    let gateway = bound.start().await.map_err(Failure::new)?;
    for address in addresses {
        info!(%address, "listening");
    }
    say_ready();
    notify::service_manager("READY=1");
    tokio::spawn(watchdog::watch(gateway.all_beat()));
    signals.next().await;
    notify::service_manager("STOPPING=1");
    // Asked twice, the administrator is in a hurry.
    gateway.drain(signals.next()).await;
    Ok(())
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

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
