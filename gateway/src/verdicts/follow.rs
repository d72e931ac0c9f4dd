//! How the kernel side hears of verdicts: a queue that never waits, and a flag for when it was too short.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use tracing::warn;

use super::ban_view::BanView;

/// Changes on their way. More at once than this are not told one by one: the follower then compares everything.
const QUEUE_MAX: usize = 4096;

/// What a follower of the verdicts must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This ban is in force now, in place of one of the same network.
    Entered(BanView),
    /// The ban of exactly this network is not.
    Removed(IpNet),
    /// This address is never banned from now on.
    Protected(IpAddr),
}

/// The follower's end.
#[derive(Debug)]
pub struct Changes {
    queue: Receiver<Change>,
    behind: Arc<AtomicBool>,
}

impl Changes {
    /// The next change, if one comes in time.
    ///
    /// # Errors
    /// None came in time, or the verdicts are gone and none will.
    pub fn next(&self, patience: Duration) -> Result<Change, RecvTimeoutError> {
        self.queue.recv_timeout(patience)
    }

    /// Whether changes were lost since this was asked last: everything must be compared.
    pub fn were_lost(&self) -> bool {
        self.behind.swap(false, Ordering::AcqRel)
    }
}

/// The end at which changes are told. Nobody follows at first.
#[derive(Debug, Default)]
pub(super) struct Follower(OnceLock<Teller>);

#[derive(Debug)]
struct Teller {
    queue: SyncSender<Change>,
    behind: Arc<AtomicBool>,
}

impl Follower {
    /// From now on every change is told. There is one follower at most: `None` for a second.
    pub(super) fn follow(&self) -> Option<Changes> {
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let behind = Arc::new(AtomicBool::new(false));
        self.0.set(Teller { queue: sender, behind: behind.clone() }).ok()?;
        Some(Changes { queue, behind })
    }

    /// Never waits.
    pub(super) fn tell(&self, change: Change) {
        let Some(Teller { queue, behind }) = self.0.get() else { return };
        if queue.try_send(change).is_err() && !behind.swap(true, Ordering::AcqRel) {
            warn!("the kernel side does not keep up with bans; it will be told of all of them again");
        }
    }
}
