//! Steering: verdicts go into the maps, and what the kernel side saw comes out of them.
//!
//! One thread of its own writes, because a ban must not wait for anything else the gateway does, and a write that takes long
//! must hold up nobody. It keeps up with [`Verdicts`] by a queue; if that was too short, it compares everything. A second
//! thread takes sources out that have not been seen for long: that means walking a large map, which no ban may wait for.
//!
//! Another process of this gateway may take over: then this one writes nothing any more, and reads nothing out that is gone
//! when it is read. If that one does not come to serve, the maps are what it left, and are gone through again.
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
use super::pen::Pen;
use super::reader::MapReader;
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
    pub reader: MapReader,
    failures: Arc<AtomicU64>,
    pen: Pen,
}

/// Whose word counts where the maps and the book of verdicts differ at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// The maps': an earlier run left bans there, and has ended.
    Maps,
    /// The book's: the process that this one takes over from has handed it over.
    Book,
}

impl Steering {
    /// Takes the maps over: the allow list becomes what it is to be, bans that another run left go into the book of
    /// verdicts, or the book into the maps, and from now on every verdict goes into the maps.
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
        truth: Truth,
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
        Self::over(|name| program.map(name), verdicts, (&xdp.allow, &impossible), truth).map_err(failed)
    }

    /// `open` gives handles of maps by their name.
    fn over(
        open: impl Fn(&str) -> Result<MapData, MapError>,
        verdicts: &Arc<Verdicts>,
        (allow, impossible): (&[IpNet], &[(IpNet, Deny)]),
        truth: Truth,
    ) -> Result<Self, StartError> {
        let lists = Lists { allow: allow.to_vec(), impossible: impossible.to_vec() };
        let writer = lists.writer(KernelTables::open(&open)?, verdicts)?;
        let events: RingBuf<MapData> = typed(&open, maps::EVENTS)?;
        let changes = verdicts.follow().ok_or(StartError::Followed)?;
        let restored = match truth {
            Truth::Maps => restore(&writer, verdicts)?,
            Truth::Book => 0,
        };
        if restored > 0 {
            info!(bans = restored, "bans of another run are still in force");
        }
        let (failures, pen) = (Arc::new(AtomicU64::new(0)), Pen::default());
        let mut writing = WritingThread { writer, verdicts: Arc::downgrade(verdicts), failures: failures.clone() };
        let own_pen = pen.clone();
        Builder::new().name("kernel-writer".to_owned()).spawn(move || {
            if truth == Truth::Book {
                writing.compare_all();
            }
            writing.work(&changes, events, &lists, &own_pen);
        })?;
        let (sources, alive, own_pen) = (Sources::open(&open)?, Arc::downgrade(verdicts), pen.clone());
        Builder::new().name("kernel-sources".to_owned()).spawn(move || forget_sources(sources, &alive, &own_pen))?;
        Ok(Self { reader: MapReader::open(&open)?, failures, pen })
    }

    /// From now on this process writes no map: another one does.
    pub fn lay_down(&self) {
        self.pen.lay_down();
    }

    /// It writes them again.
    pub fn take_up(&self) {
        self.pen.take_up();
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

/// What the maps hold beside the book of verdicts.
struct Lists {
    /// `xdp.allow`
    allow: Vec<IpNet>,
    impossible: Vec<(IpNet, Deny)>,
}

impl Lists {
    /// Takes the maps over as they are.
    fn writer<T: Tables>(&self, tables: T, verdicts: &Verdicts) -> Result<Writer<T>, T::Error> {
        Writer::new(tables, &allow_list(verdicts, &self.allow), &self.impossible, now_ns())
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
struct WritingThread<T> {
    writer: Writer<T>,
    /// Not a handle that keeps the gateway alive: the thread ends with it.
    verdicts: Weak<Verdicts>,
    failures: Arc<AtomicU64>,
}

impl<T: Tables> WritingThread<T> {
    fn work(mut self, changes: &Changes, mut events: RingBuf<MapData>, lists: &Lists, pen: &Pen) {
        let mut seen = 0;
        loop {
            let change = match changes.next(PATIENCE) {
                Ok(change) => Some(change),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // While another process writes, changes are let go of: afterwards everything is compared.
            let Some(in_hand) = pen.take() else { continue };
            if in_hand.was_down(&mut seen) {
                self.take_over_again(lists);
            } else if let Some(change) = change {
                self.follow(change);
            }
            if changes.were_lost() {
                self.compare_all();
            }
            log_events(&mut events);
        }
    }

    /// Another process has written meanwhile, and is gone.
    fn take_over_again(&mut self, lists: &Lists) {
        let Some(verdicts) = self.verdicts.upgrade() else { return };
        let allow = allow_list(&verdicts, &lists.allow);
        if let Err(error) = self.writer.take_over(&allow, &lists.impossible, now_ns()) {
            warn!(%error, "the kernel side's maps cannot be read again");
        }
        self.compare_all();
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
fn forget_sources(mut sources: Sources, alive: &Weak<Verdicts>, pen: &Pen) {
    let ticks = SOURCES_INTERVAL.as_secs() / TICK.as_secs();
    for tick in 1_u64.. {
        sleep(TICK);
        if alive.strong_count() == 0 {
            return;
        }
        if tick.is_multiple_of(ticks)
            && let Some(_in_hand) = pen.take()
            && let Err(error) = sources.forget_idle(now_ns())
        {
            warn!(%error, "cannot walk through the kernel's sources");
        }
    }
}

#[cfg(test)]
mod tests;
