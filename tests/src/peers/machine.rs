//! A Debian of its own under a real systemd, on one of the scenario's hosts: what packages are installed into.
//!
//! The root file system that `cargo xtask peers debian` made is booted in a container (systemd-nspawn), with the host's network
//! and a BPF file system of its own; what is written there is gone with it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::kernel::pins::Pins;

use super::log::Process;
use super::net::Host;
use super::stage::{said, temporary_folder};
use super::{folder, target};

/// Longest that a command may run there, in seconds.
const COMMAND_MAX: &str = "300";

/// Runs until dropped. One at a time, for all of them would have one control group.
#[derive(Debug)]
pub struct Machine {
    _process: Process,
    /// Its first process, as this machine numbers it.
    leader: u32,
    _pins: Pins,
    shared: TempDir,
    _turn: File,
}

impl Machine {
    /// Boots it on this host.
    pub fn boot(host: &Host) -> Self {
        let turn = File::create(target().join("peers/.machine")).expect("a file to lock");
        turn.lock().expect("nobody else's turn");
        let (pins, shared) = (Pins::new(), temporary_folder());
        let mut nspawn = Command::new("setpriv");
        // All of it ends with the first process of a process namespace, as on a stage.
        nspawn.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        nspawn.args(["systemd-nspawn", "--volatile=overlay", "--boot", "--register=no", "--keep-unit"]);
        nspawn.args(["--capability=all", "--system-call-filter=bpf perf_event_open"]);
        nspawn.arg("--directory").arg(folder("debian"));
        nspawn.arg(format!("--network-namespace-path=/run/netns/{}", host.name()));
        nspawn.arg(format!("--bind={}:/sys/fs/bpf", pins.top().display()));
        nspawn.arg(format!("--bind={}:/srv", shared.path().display()));
        let child = nspawn.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let process = Process::new("the machine", child.expect("systemd-nspawn"));
        process.log().wait_for(&["multi-user.target"]);
        let leader = process.descendant("systemd").expect("its first process");
        Self { _process: process, leader, _pins: pins, shared, _turn: turn }
    }

    /// Its first process; whoever enters that one's namespaces is there.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// A shell script there, as root.
    pub fn run(&self, script: &str) -> Output {
        let mut command = Command::new("timeout");
        command.args([COMMAND_MAX, "nsenter", "--all", "--target", &self.leader.to_string(), "sh", "-euc", script]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        command.output().expect("nsenter")
    }

    /// One that must go well, for what it says, without the last line's end.
    ///
    /// # Panics
    /// If it does not.
    pub fn must(&self, script: &str) -> String {
        let output = self.run(script);
        assert!(output.status.success(), "{script}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Writes a file there.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.shared.path().join("written"), text).expect("a file");
        self.must(&format!("install -Dm644 /srv/written {path}"));
    }

    /// Copies a file to its /srv.
    pub fn copy(&self, file: &Path) -> String {
        let name = file.file_name().expect("a file");
        fs::copy(file, self.shared.path().join(name)).expect("a file");
        format!("/srv/{}", name.to_string_lossy())
    }

    /// What it shares with this machine: its /srv.
    pub fn shared(&self) -> &Path {
        self.shared.path()
    }
}
