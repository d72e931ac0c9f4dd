//! A Debian of its own under a real systemd, on one of the scenario's hosts: what packages are installed into.
//!
//! The root file system that `cargo xtask peers debian` made is booted in a container (systemd-nspawn), with the host's network
//! and a BPF file system of its own; what is written there is gone with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::kernel::pins::Pins;

use super::log::Process;
use super::net::Host;
use super::stage::{said, temporary_folder};
use super::{folder, target};

/// Longest that a command may run there, in seconds.
const COMMAND_MAX: &str = "300";

/// With this exit code systemd-nspawn says that its machine wants to be started anew.
const REBOOTED: i32 = 133;

/// Runs until dropped. One at a time, for all of them would have one control group.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    /// Its first process, as this machine numbers it.
    leader: u32,
    _pins: Pins,
    shared: TempDir,
    _turn: File,
}

/// What a machine keeps when it is rebooted, or loses its power: a copy of the root file system.
#[derive(Debug)]
pub struct Disk(TempDir);

impl Disk {
    /// As it was made.
    #[expect(clippy::new_without_default, reason = "a default that copies a system would surprise")]
    pub fn new() -> Self {
        let disk = Self(temporary_folder());
        let copied = Command::new("cp").arg("-a").args([folder("debian"), disk.root()]).status().expect("cp");
        assert!(copied.success(), "a copy of the Debian");
        disk
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }
}

impl Machine {
    /// Boots it on this host; what is written there is gone with it.
    pub fn boot(host: &Host) -> Self {
        Self::with(host, &folder("debian"), true)
    }

    /// Boots it from this disk: what is written there stays, and nothing else.
    pub fn boot_from(host: &Host, disk: &Disk) -> Self {
        Self::with(host, &disk.root(), false)
    }

    fn with(host: &Host, root: &Path, volatile: bool) -> Self {
        let turn = File::create(target().join("peers/.machine")).expect("a file to lock");
        turn.lock().expect("nobody else's turn");
        let (pins, shared) = (Pins::new(), temporary_folder());
        let mut nspawn = Command::new("setpriv");
        // All of it ends with the first process of a process namespace, as on a stage.
        nspawn.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        nspawn.args(["systemd-nspawn", "--boot", "--register=no", "--keep-unit"]);
        if volatile {
            nspawn.arg("--volatile=overlay");
        }
        nspawn.args(["--capability=all", "--system-call-filter=bpf perf_event_open"]);
        nspawn.arg("--directory").arg(root);
        nspawn.arg(format!("--network-namespace-path=/run/netns/{}", host.name()));
        nspawn.arg(format!("--bind={}:/sys/fs/bpf", pins.top().display()));
        nspawn.arg(format!("--bind={}:/srv", shared.path().display()));
        let child = nspawn.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let process = Process::new("the machine", child.expect("systemd-nspawn"));
        process.log().wait_for(&["multi-user.target"]);
        let leader = process.descendant("systemd").expect("its first process");
        Self { process, leader, _pins: pins, shared, _turn: turn }
    }

    /// Its first process; whoever enters that one's namespaces is there.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// Reboots it in good order, which ends here where the kernel would start anew: boot it from its disk again.
    ///
    /// # Panics
    /// If it does not come down in time.
    pub fn reboot(mut self) {
        // Whether the command hears its own end is a race.
        let _ = self.run("systemctl reboot");
        let status = self.process.wait();
        assert_eq!(status.code(), Some(REBOOTED), "it came down by itself");
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
