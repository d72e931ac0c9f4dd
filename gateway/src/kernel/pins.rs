//! Where maps, programs and links outlive the process: a folder on a BPF file system.
//!
//! - `PINS/vVERSION/NAME`: the maps and programs, by [`layout_version`](gateway_common::layout_version). A program of another
//!   layout cannot use these maps, so another version makes its own and never misreads them.
//! - `PINS/card-INDEX-MODE`: what holds the program on a card, outside the version, because the next version must find it: the
//!   program behind a link is replaced in one step, so not one packet passes unfiltered. By the card's number, for its name can
//!   change; with the mode, for the kernel does not say in which one a link was made.
//!
//! Once opened, the folder is reached by its descriptor: the way to it (`/sys/fs/bpf` is root's alone) is closed to the user
//! that the gateway later runs as.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as Permissions, OFlags, open};

use super::errors::pins_error;
use super::{KernelError, Mode};

/// A folder that was named, and not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pins {
    folder: PathBuf,
}

/// A folder that is there, is on a BPF file system, and stays within reach.
#[derive(Debug)]
pub(super) struct PinFolder {
    named: Pins,
    handle: OwnedFd,
}

/// What holds a program on a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinnedCard {
    pub(super) path: PathBuf,
    /// `None`: of an earlier layout of this folder.
    pub(super) card: Option<(u32, Mode)>,
}

impl Pins {
    /// `folder` is made when it is not there; what it is made in must be a BPF file system.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder that was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder, for its owner only, and opens it.
    pub(super) fn open(&self) -> Result<PinFolder, KernelError> {
        let error = |error: io::Error| pins_error(self, &error);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join(version()));
        made.map_err(error)?;
        if is_bpf_file_system(&self.folder).map_err(error)? {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let handle = open(&self.folder, flags, Permissions::empty()).map_err(|e| error(e.into()))?;
            return Ok(PinFolder { named: self.clone(), handle });
        }
        // What was made in the wrong place goes again; if something else is in there, it stays.
        let _ = fs::remove_dir(self.folder.join(version()));
        let _ = fs::remove_dir(&self.folder);
        Err(KernelError::Pins {
            folder: self.folder.clone(),
            why: "it is not on a BPF file system; `mount -t bpf bpf /sys/fs/bpf` makes the usual one".to_owned(),
        })
    }

    /// Takes the program off every card, and forgets every ban and counter. Nothing there is no error.
    ///
    /// # Errors
    /// What a gateway left cannot be removed.
    pub fn remove(&self) -> Result<(), KernelError> {
        match remove_pins(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| pins_error(self, &error)),
        }
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self::new("/sys/fs/bpf/smtp-gateway")
    }
}

impl PinFolder {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    /// Of a map or a program of this version.
    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.path().join(version()).join(name)
    }

    /// Of what holds the program on a card.
    pub(super) fn of_card(&self, index: u32, mode: Mode) -> PathBuf {
        self.path().join(format!("card-{index}-{}", mode.as_str()))
    }

    /// What holds programs on cards, of this run or of an earlier one.
    pub(super) fn cards(&self) -> Result<Vec<PinnedCard>, KernelError> {
        let mut cards = Vec::new();
        for entry in fs::read_dir(self.path()).map_err(|error| self.error(&error))? {
            let entry = entry.map_err(|error| self.error(&error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_of_card(&name) {
                cards.push(PinnedCard { path: entry.path(), card: card_of(&name) });
            }
        }
        Ok(cards)
    }

    /// Removes a pin; none there is no error.
    pub(super) fn remove(&self, pin: &Path) -> Result<(), KernelError> {
        match fs::remove_file(pin) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|error| self.error(&error)),
        }
    }

    fn error(&self, error: &io::Error) -> KernelError {
        pins_error(&self.named, error)
    }
}

fn version() -> String {
    format!("v{:016x}", gateway_common::layout_version())
}

/// `link-…` is what an earlier layout of the folder had.
fn is_of_card(name: &str) -> bool {
    name.starts_with("card-") || name.starts_with("link-")
}

fn card_of(name: &str) -> Option<(u32, Mode)> {
    let (index, mode) = name.strip_prefix("card-")?.split_once('-')?;
    let mode = [Mode::Native, Mode::Generic].into_iter().find(|known| known.as_str() == mode)?;
    Some((index.parse().ok()?, mode))
}

fn is_bpf_file_system(folder: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let kind = rustix::fs::statfs(folder)?.f_type;
    // The type is signed on some machines, and the magic number does not fit there.
    Ok(u64::try_from(kind).unwrap_or_default() & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Links and maps of this version and of others. Nothing but what a gateway made.
fn remove_pins(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_of_card(&name) {
            fs::remove_file(entry.path())?;
        } else if name.starts_with('v') {
            fs::remove_dir_all(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_are_read_back() {
        for (name, is_ours, card) in [
            ("card-3-native", true, Some((3, Mode::Native))),
            ("card-17-generic", true, Some((17, Mode::Generic))),
            ("card-3-off", true, None),
            ("card-x-native", true, None),
            ("link-eth0-native", true, None),
            ("v0123456789abcdef", false, None),
            ("stranger", false, None),
        ] {
            assert_eq!((is_of_card(name), card_of(name)), (is_ours, card), "{name}");
        }
    }
}
