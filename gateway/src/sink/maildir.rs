//! A Maildir: each message is written below `tmp/` and renamed into `new/` when it is whole, so a reader never sees half
//! of one. Nothing is synced to the disk; what a sink keeps may be lost with the power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Numbers the messages of this process, for names that no other message has.
static MESSAGES: AtomicU64 = AtomicU64::new(1);

/// Where messages are kept.
#[derive(Debug)]
pub(super) struct Maildir {
    path: PathBuf,
}

/// A message below `tmp/`; it is removed if it is dropped before [`Draft::commit`].
#[derive(Debug)]
pub(super) struct Draft {
    file: BufWriter<File>,
    temporary: PathBuf,
    target: PathBuf,
    kept: bool,
}

impl Maildir {
    /// Uses the Maildir at `path`, and makes what of it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            let part = path.join(part);
            fs::create_dir_all(&part).map_err(|error| {
                let text = format!("the Maildir's {} cannot be made: {error}", part.display());
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(Self { path: path.into() })
    }

    /// Begins a message with `header`.
    pub(super) fn draft(&self, header: &str) -> io::Result<Draft> {
        let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs());
        let number = MESSAGES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{seconds}.P{}Q{number}.sink", std::process::id());
        let temporary = self.path.join("tmp").join(&name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let target = self.path.join("new").join(name);
        let mut draft = Draft { file: BufWriter::new(file), temporary, target, kept: false };
        draft.write(header.as_bytes())?;
        Ok(draft)
    }
}

impl Draft {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Moves the message into `new/`.
    pub(super) fn commit(mut self) -> io::Result<()> {
        self.file.flush()?;
        fs::rename(&self.temporary, &self.target)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed stays in tmp/, where Maildir readers clean up.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
