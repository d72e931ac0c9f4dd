//! Steering: verdicts go into the maps, and what the kernel side saw comes out of them.
//!
//! One thread of its own writes, because a ban must not wait for anything else the gateway does, and a write that takes long
//! must hold up nobody. It keeps up with [`Verdicts`] by a queue; if that was too short, it compares everything. A second
//! thread takes sources out that have not been seen for long: that means walking a large map, which no ban may wait for.
//!
//! A failed write is logged and counted, never fatal: the gateway refuses banned sources itself too.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Weak};
use std::thread::{Builder, sleep};
use std::time::Duration;

use aya::maps::{MapData, MapError, RingBuf};
use gateway_common::{ALLOW_AUTOMATIC, ALLOW_CONFIGURED, Deny, maps};
use ipnet::IpNet;
use tracing::{info, warn};

use crate::config::Xdp;
use crate::time::clock::{now, now_ns};
use crate::verdicts::{BanView, Change, Changes, Protection, Verdicts};

use super::events::log_events;
use super::impossible::impossible;
use super::reader::Reader;
use super::sources::Sources;
use super::tables::{KernelTables, Tables, typed};
use super::time::ns_of;
use super::translate::{ban_of, reason_of};
use super::writer::Writer;
use super::{KernelError, Program, chain};

/// How long an event may wait to be logged.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two walks through the sources.
const SOURCES_INTERVAL: Duration = Duration::from_secs(30);
/// How often a thread looks whether the gateway is still there.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum StartError {
    Map(MapError),
    Thread(io::Error),
    Followed,
}

/// The userspace end of the maps.
#[derive(Debug)]
pub struct Steering {
    /// What the kernel side counted.
    pub reader: Reader,
    failures: Arc<AtomicU64>,
}

impl Steering {
    /// Takes the maps over: the allow list becomes what it is to be, bans that another run left go into the book of
    /// verdicts, and from now on every verdict goes into the maps.
    ///
    /// Besides those that are never banned, the kernel side neither limits nor drops `xdp.allow`; where a card is outside,
    /// nobody comes from the networks that are `trusted`.
    ///
    /// # Errors
    /// The maps cannot be had, the system has no more threads, or the verdicts have a follower already.
    pub fn start(
        program: &Program,
        verdicts: &Arc<Verdicts>,
        xdp: &Xdp,
        trusted: &[IpNet],
    ) -> Result<Self, KernelError> {
        let impossible = if xdp.outside.is_empty() { Vec::new() } else { impossible(trusted) };
        let failed = |error: StartError| KernelError::Other {
            what: "steer the kernel side".to_owned(),
            why: match error {
                StartError::Map(error) => chain(&error),
                StartError::Thread(error) => format!("{error}; raise the limit of tasks"),
                StartError::Followed => "something else does already".to_owned(),
            },
        };
        Self::over(|name| program.map(name), verdicts, &xdp.allow, &impossible).map_err(failed)
    }

    /// `open` gives handles of maps by their name.
    fn over(
        open: impl Fn(&str) -> Result<MapData, MapError>,
        verdicts: &Arc<Verdicts>,
        allow: &[IpNet],
        impossible: &[(IpNet, Deny)],
    ) -> Result<Self, StartError> {
        let allow = allow_list(verdicts, allow);
        let writer = Writer::new(KernelTables::open(&open)?, &allow, impossible, now_ns())?;
        let events: RingBuf<MapData> = typed(&open, maps::EVENTS)?;
        let changes = verdicts.follow().ok_or(StartError::Followed)?;
        let restored = restore(&writer, verdicts)?;
        if restored > 0 {
            info!(bans = restored, "bans of another run are still in force");
        }
        let failures = Arc::new(AtomicU64::new(0));
        let steward = Steward { writer, verdicts: Arc::downgrade(verdicts), failures: failures.clone() };
        Builder::new().name("kernel-writer".to_owned()).spawn(move || steward.work(&changes, events))?;
        let (sources, alive) = (Sources::open(&open)?, Arc::downgrade(verdicts));
        Builder::new().name("kernel-sources".to_owned()).spawn(move || forget_sources(sources, &alive))?;
        Ok(Self { reader: Reader::open(&open)?, failures })
    }

    /// Writes that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl From<MapError> for StartError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Thread(error)
    }
}

fn allow_list(verdicts: &Verdicts, configured: &[IpNet]) -> Vec<(IpNet, u32)> {
    let mut allow: Vec<_> = configured.iter().map(|network| (*network, ALLOW_CONFIGURED)).collect();
    for (network, protection) in verdicts.protected() {
        let value = match protection {
            Protection::Allowed(_) => ALLOW_CONFIGURED,
            Protection::Loopback | Protection::Backend(_) | Protection::LoadBalancer(_) => ALLOW_AUTOMATIC,
        };
        if !allow.iter().any(|(other, _)| *other == network) {
            allow.push((network, value));
        }
    }
    allow
}

/// What another run left in the maps goes into the book.
fn restore<T: Tables>(writer: &Writer<T>, verdicts: &Verdicts) -> Result<usize, T::Error> {
    let mut restored = 0;
    for (network, deny) in writer.bans()? {
        match verdicts.restore(ban_of(network, &deny)) {
            Ok(()) => restored += 1,
            Err(_) => warn!(%network, "there are more bans in the kernel than there may be"),
        }
    }
    Ok(restored)
}

/// The writing thread.
struct Steward<T> {
    writer: Writer<T>,
    /// Not a handle that keeps the gateway alive: the thread ends with it.
    verdicts: Weak<Verdicts>,
    failures: Arc<AtomicU64>,
}

impl<T: Tables> Steward<T> {
    fn work(mut self, changes: &Changes, mut events: RingBuf<MapData>) {
        loop {
            match changes.next(PATIENCE) {
                Ok(change) => self.follow(change),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if changes.were_lost() {
                self.compare_all();
            }
            log_events(&mut events);
        }
    }

    fn follow(&mut self, change: Change) {
        match change {
            Change::Entered(ban) => self.put(&ban),
            Change::Removed(network) => {
                let removed = self.writer.remove(network);
                self.check(removed, network);
            }
            Change::Protected(address) => {
                let allowed = self.writer.allow(address.into(), ALLOW_AUTOMATIC);
                self.check(allowed, address.into());
            }
        }
    }

    fn put(&mut self, ban: &BanView) {
        if ban.in_kernel {
            let (until, since) = (ns_of(ban.until), ns_of(ban.since));
            let put = self.writer.put(ban.network, until, since, reason_of(ban.cause));
            self.check(put, ban.network);
        }
    }

    /// The book against the maps.
    fn compare_all(&mut self) {
        let Some(verdicts) = self.verdicts.upgrade() else { return };
        let wanted = verdicts.bans(now());
        let networks: HashSet<_> = wanted.iter().map(|ban| ban.network).collect();
        match self.writer.bans() {
            Ok(known) => {
                for (network, _) in known.into_iter().filter(|(network, _)| !networks.contains(network)) {
                    self.follow(Change::Removed(network));
                }
            }
            Err(error) => warn!(%error, "cannot read the kernel's bans"),
        }
        for ban in &wanted {
            self.put(ban);
        }
        for (network, _) in verdicts.protected() {
            let allowed = self.writer.allow(network, ALLOW_AUTOMATIC);
            self.check(allowed, network);
        }
    }

    fn check(&self, written: Result<(), T::Error>, network: IpNet) {
        if let Err(error) = written {
            self.failures.fetch_add(1, Ordering::Relaxed);
            warn!(%network, %error, "the kernel side could not be told of a verdict; the gateway itself enforces it");
        }
    }
}

/// Walks through the sources now and then, for as long as the gateway is there.
fn forget_sources(mut sources: Sources, alive: &Weak<Verdicts>) {
    let ticks = SOURCES_INTERVAL.as_secs() / TICK.as_secs();
    for tick in 1_u64.. {
        sleep(TICK);
        if alive.strong_count() == 0 {
            return;
        }
        if tick.is_multiple_of(ticks)
            && let Err(error) = sources.forget_idle(now_ns())
        {
            warn!(%error, "cannot walk through the kernel's sources");
        }
    }
}

#[cfg(test)]
mod tests;
