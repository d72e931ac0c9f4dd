//! A BPF file system of a scenario's own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until dropped; what is pinned in it then goes with it.
#[derive(Debug)]
pub struct Pins(tempfile::TempDir);

impl Pins {
    /// A new one, empty.
    #[expect(clippy::new_without_default, reason = "a default that mounts something would surprise")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).status().expect("mount");
        assert!(mounted.success(), "a BPF file system");
        Self(folder)
    }

    /// Its top.
    pub fn top(&self) -> &Path {
        self.0.path()
    }

    /// Where a gateway may pin.
    pub fn folder(&self) -> PathBuf {
        self.0.path().join("gateway")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // What cannot be unmounted is the machine's to tidy up.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
