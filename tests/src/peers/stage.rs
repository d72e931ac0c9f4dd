//! A root file system of a program's own: the machine's, with a peer's unpacked tree and the scenario's files laid over it.
//!
//! Mail servers have paths and user names compiled in. Instead of teaching each to live elsewhere, its packages are laid
//! over `/usr` by an overlay in a private mount namespace, with an `/etc` that knows its users and an empty `/var` and
//! `/run`. The machine sees none of it. A process namespace goes with it, so that killing one process ends all of them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::folder;
use super::log::Process;
use super::net::Host;

/// The first uid and gid given to users that exist on a stage only.
const FIRST_ID: u32 = 61_000;
/// How long a program that is not a server may run.
const TOOL_MAX: Duration = Duration::from_secs(60);

/// A root in the making, and the folder behind it.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    peer: Option<PathBuf>,
    prepare: String,
    next_id: u32,
}

impl Stage {
    /// A stage for a peer's programs.
    pub fn new(peer: &str) -> Self {
        Self::empty(Some(folder(peer)))
    }

    /// A stage for programs of the machine.
    pub fn plain() -> Self {
        Self::empty(None)
    }

    fn empty(peer: Option<PathBuf>) -> Self {
        let stage = Self { folder: temporary_folder(), peer, prepare: String::new(), next_id: FIRST_ID };
        for name in ["passwd", "group"] {
            stage.etc(name, &fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default());
        }
        // No program here may ask the machine's resolver.
        stage.etc("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n");
        stage.etc("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        stage.etc("hosts", "127.0.0.1 localhost\n::1 localhost\n");
        for name in ["lib", "log", "mail", "run", "spool", "tmp"] {
            fs::create_dir_all(stage.folder.path().join("var").join(name)).expect("a folder");
        }
        stage
    }

    /// Writes a file below `/etc`.
    pub fn etc(&self, name: &str, text: &str) {
        let path = self.etc_path(name);
        fs::create_dir_all(path.parent().expect("below a folder")).expect("a folder");
        fs::write(&path, text).expect("a file on the stage");
        // Postfix waits until a file it has just seen change has rested for two seconds.
        let rested = SystemTime::now() - Duration::from_secs(60);
        File::options().write(true).open(path).and_then(|file| file.set_modified(rested)).expect("a file on the stage");
    }

    /// A file below `/etc`, as the machine sees it.
    pub fn etc_path(&self, name: &str) -> PathBuf {
        self.folder.path().join("etc").join(name)
    }

    /// A system user with a group of the same name and number; returns the number.
    pub fn user(&mut self, name: &str) -> u32 {
        let id = self.group(name);
        self.append("passwd", &format!("{name}:x:{id}:{id}::/var/empty:/usr/sbin/nologin\n"));
        id
    }

    /// A group; returns its number.
    pub fn group(&mut self, name: &str) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        self.append("group", &format!("{name}:x:{id}:\n"));
        id
    }

    /// The machine may have the same name with another number: the last line would lose, so ours goes first.
    fn append(&self, file: &str, line: &str) {
        let path = self.folder.path().join("etc").join(file);
        let rest = fs::read_to_string(&path).expect("the stage's own file");
        fs::write(&path, format!("{line}{rest}")).expect("the stage's own file");
    }

    /// Shell commands to run on the stage before the program.
    pub fn prepare(&mut self, commands: &str) {
        self.prepare.push_str(commands);
        self.prepare.push('\n');
    }

    /// A path below the stage's `/var`, as the machine sees it.
    pub fn var(&self, name: &str) -> PathBuf {
        self.folder.path().join("var").join(name)
    }

    /// Starts a server. Its standard output and error become its log.
    ///
    /// A shell stays as process 1 of the server's namespace, and dies with its parent. A server in its place would not:
    /// the kernel forgets that bond when a program changes its user, if only for a moment.
    pub fn start(&self, host: &Host, program: &[&str]) -> Process {
        let mut command = host.command("setpriv");
        // A test program that is killed must not leave servers behind.
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", &self.script("\"$@\"\nexit $?"), "sh"]).args(program);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Process::new(program[0], child.unwrap_or_else(|error| panic!("{program:?}: {error}")))
    }

    /// Runs a program to its end.
    pub fn run(&self, host: &Host, program: &[&str]) -> Output {
        self.run_within(TOOL_MAX, host, program)
    }

    /// The same for a program that may take longer.
    pub fn run_within(&self, longest: Duration, host: &Host, program: &[&str]) -> Output {
        let mut command = host.command("timeout");
        let seconds = longest.as_secs().to_string();
        command.args([&seconds, "unshare", "--mount", "sh", "-ec", &self.script("exec \"$@\""), "sh"]).args(program);
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{program:?}: {error}"))
    }

    fn script(&self, launch: &str) -> String {
        let own = self.folder.path().display();
        let mut script = String::from("exec 2>&1\n");
        let mut etc = format!("{own}/etc");
        if let Some(peer) = &self.peer {
            let peer = peer.display();
            writeln!(script, "mount -t overlay stage -o lowerdir={peer}/usr:/usr /usr").expect("a string");
            if Path::new(&format!("{peer}/etc")).is_dir() {
                write!(etc, ":{peer}/etc").expect("a string");
            }
        }
        writeln!(script, "mount -t overlay stage -o lowerdir={etc}:/etc /etc").expect("a string");
        writeln!(script, "mount --bind {own}/var /var\nmount -t tmpfs stage /run").expect("a string");
        script.push_str(&self.prepare);
        script.push_str(launch);
        script
    }
}

/// A folder other users may look into: servers give up root.
pub fn temporary_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::Builder::new().prefix("smtp-gateway-").tempdir().expect("a temporary folder");
    // A gateway that root started gives root up, and takes its own files away at the end.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("its permissions");
    folder
}

/// A command's output as text, for assertions.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
