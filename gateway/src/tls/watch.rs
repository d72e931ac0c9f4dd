//! Sees that certificate files have changed.
//!
//! What is watched are directories: tools that renew certificates put new files in place of old ones, and certbot's names are
//! symbolic links, in `live/` to `archive/`, which are pointed elsewhere. So every directory on the way to a file is watched
//! in which one of its names stands. A change is told when the directories have been quiet for a while, for a key and its
//! certificate are never exchanged in one step.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use thiserror::Error;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use super::pair::PairFiles;

/// How long nothing must have happened.
const QUIET: Duration = Duration::from_millis(500);
/// Where something happens all the time, no longer than this.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// Symbolic links that are followed from one name.
const LINKS_MAX: usize = 16;

/// A directory cannot be watched.
#[derive(Debug, Error)]
#[error("{} cannot be watched: {source}", .directory.display())]
pub struct WatchFault {
    directory: PathBuf,
    source: io::Error,
}

/// Watches the directories of some files.
#[derive(Debug)]
pub struct Watch {
    /// No pipe, but read like one.
    events: Receiver,
    files: Vec<PathBuf>,
}

impl Watch {
    /// Of these pairs. Needs a runtime.
    ///
    /// # Errors
    /// A directory is not there, may not be read, or the system has no more watches.
    pub fn new(files: &[PairFiles]) -> Result<Self, WatchFault> {
        let fault = |source: io::Error| WatchFault { directory: PathBuf::from("inotify"), source };
        let events =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|error| fault(error.into()))?;
        let events = Receiver::from_owned_fd_unchecked(events).map_err(fault)?;
        let files = files.iter().flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]).collect();
        let watch = Self { events, files };
        watch.follow()?;
        Ok(watch)
    }

    /// Watches the directories as the links now lead; one that is watched already is not watched twice.
    fn follow(&self) -> Result<(), WatchFault> {
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let directories: BTreeSet<_> = self.files.iter().flat_map(|file| directories(file)).collect();
        for directory in directories {
            if let Err(error) = inotify::add_watch(&self.events, &directory, what) {
                return Err(WatchFault { directory, source: error.into() });
            }
        }
        Ok(())
    }

    /// Waits for a change and for quiet after it.
    ///
    /// # Errors
    /// The watch is at its end; nothing more will be told.
    pub async fn changed(&mut self) -> io::Result<()> {
        self.drain().await?;
        let latest = Instant::now() + QUIET_MAX;
        while let Ok(more) = timeout_at(latest, timeout(QUIET, self.drain())).await {
            match more {
                Ok(drained) => drained?,
                Err(_) => break,
            }
        }
        // A link may now lead elsewhere. What cannot be watched was there before, and its return shows itself.
        let _ = self.follow();
        Ok(())
    }

    /// Waits for an event, and takes all that are there. Which they are does not matter: all files are read again.
    async fn drain(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        self.events.readable().await?;
        loop {
            match self.events.try_read(&mut events) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The directories in which a name stands that leads to this file.
fn directories(file: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    let mut file = file.to_owned();
    for _ in 0..LINKS_MAX {
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        directories.push(directory.clone());
        match std::fs::read_link(&file) {
            Ok(target) => file = directory.join(target),
            Err(_) => break,
        }
    }
    directories
}
