//! `run`: the gateway in the foreground, from its configuration to its drain.

use std::io::{self, Write as _};
use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::observe::log;
use crate::service::Bound;

use super::{Failure, load, notify, privileges};

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let config = load(path)?;
    log::init(&config.log).map_err(Failure::new)?;
    privileges::raise_open_files(config.limits.sessions);
    let mut bound = Bound::new(config).map_err(Failure::new)?;
    if let Some(remains) = privileges::drop_all(&bound).map_err(privileges::DropError::into_failure)? {
        bound.warn(remains);
    }
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
    // Without a reader of standard output the log still tells.
    if let Err(error) = writeln!(io::stdout(), "ready") {
        warn!(%error, "cannot print `ready`");
    }
    notify::service_manager("READY=1");
    signals.next().await;
    notify::service_manager("STOPPING=1");
    // Asked twice, the administrator is in a hurry.
    gateway.drain(signals.next()).await;
    Ok(())
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
