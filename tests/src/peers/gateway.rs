//! The gateway itself, as an administrator runs it: the built program, a configuration file, `ready` on standard output.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::log::{Log, Process};
use super::net::{FRONT, Family, Trio};
use super::stage::temporary_folder;
use super::{LOCAL_DOMAIN, target};

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    /// After `process`: it goes when the program is gone.
    folder: TempDir,
}

impl Gateway {
    /// A gateway in front of a backend, with the shortest configuration that serves.
    pub fn start(trio: &Trio, backend: SocketAddr, identity: &str) -> Self {
        Self::start_with(trio, backend, identity, "")
    }

    /// The same with more configuration: whole sections, TOML. Without a `[proof]` among them it proves nothing by itself, so
    /// that a backend's log has only what the scenario does.
    pub fn start_with(trio: &Trio, backend: SocketAddr, identity: &str, more: &str) -> Self {
        Self::start_confined(trio, backend, identity, more, &[])
    }

    /// The same with more keys of `[relay]`.
    pub fn start_relaying(trio: &Trio, backend: SocketAddr, identity: &str, relay: &str, more: &str) -> Self {
        Self::launch(trio, backend, identity, [relay, more], &[])
    }

    /// The same, with more options for `setpriv`: what the gateway may do from the beginning.
    pub fn start_confined(trio: &Trio, backend: SocketAddr, identity: &str, more: &str, confinement: &[&str]) -> Self {
        Self::launch(trio, backend, identity, ["", more], confinement)
    }

    /// How it ends and what it says if it may not do what it must; the same arguments.
    pub fn refused(trio: &Trio, backend: SocketAddr, identity: &str, confinement: &[&str]) -> Output {
        let (mut command, _folder) = Self::command(trio, backend, identity, ["", ""], confinement);
        command.output().expect("the gateway")
    }

    /// By a whole configuration of somebody else's, but for the control socket, and without look-ups: no resolver is there.
    pub fn by(trio: &Trio, configuration: &str) -> Self {
        let folder = temporary_folder();
        let (file, socket) = (folder.path().join("gateway.toml"), folder.path().join("control.sock"));
        let configuration =
            format!("{configuration}[dns]\nenabled = false\n[control]\nsocket = \"{}\"\n", socket.display());
        fs::write(&file, configuration).expect("a configuration file");
        let mut command = trio.gateway.command("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", "exec \"$@\" 2>&1", "sh"]);
        command.arg(program()).args(["run", "-c"]).arg(&file).stdin(Stdio::null());
        Self::ready(command, folder)
    }

    fn launch(trio: &Trio, backend: SocketAddr, identity: &str, more: [&str; 2], confinement: &[&str]) -> Self {
        let (command, folder) = Self::command(trio, backend, identity, more, confinement);
        Self::ready(command, folder)
    }

    fn ready(mut command: Command, folder: TempDir) -> Self {
        let child = command.stdout(Stdio::piped()).spawn().expect("the gateway");
        let process = Process::new("the gateway", child);
        process.log().wait_for_line("ready");
        Self { process, folder }
    }

    /// The gateway with everything in this folder. What it says of errors goes to standard output too.
    fn command(
        trio: &Trio,
        backend: SocketAddr,
        identity: &str,
        [relay, more]: [&str; 2],
        confinement: &[&str],
    ) -> (Command, TempDir) {
        let folder = temporary_folder();
        let quiet = if more.contains("[proof]") { "" } else { "[proof]\nenabled = false\n" };
        let file = folder.path().join("gateway.toml");
        let socket = folder.path().join("control.sock");
        // No client can be shown to a backend of the other family under its own address.
        let serves = |family: &Family| identity != "transparent" || family.smtp(FRONT).is_ipv4() == backend.is_ipv4();
        let listener = |family: Family| format!("[[listener]]\naddress = \"{}\"\n", family.smtp(FRONT));
        let listeners: String = Family::BOTH.into_iter().filter(serves).map(listener).collect();
        let config = format!(
            "[server]\nhostname = \"gateway.test\"\nworkers = 1\n{}\
             [[backend]]\nname = \"backend\"\naddress = \"{backend}\"\nidentity = \"{identity}\"\n\
             [relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n{relay}\n[dns]\nenabled = false\n\
             [control]\nsocket = \"{}\"\n[log]\nlevel = \"debug\"\n{quiet}{more}",
            listeners,
            socket.display()
        );
        fs::write(&file, config).expect("a configuration file");
        let mut command = trio.gateway.command("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(confinement).args(["sh", "-c", "exec \"$@\" 2>&1", "sh"]);
        command.arg(program()).args(["run", "-c"]).arg(&file).stdin(Stdio::null());
        (command, folder)
    }

    /// Changes its configuration file; it reads it at a reload.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let file = self.folder.path().join("gateway.toml");
        let config = fs::read_to_string(&file).expect("its configuration");
        fs::write(&file, change(config)).expect("its configuration");
    }

    /// Its control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Runs `network` on its host, with its configuration.
    pub fn network(&self, trio: &Trio, verb: &str) -> Output {
        let mut command = trio.gateway.command("timeout");
        command.arg("60").arg(program()).args(["network", verb, "-c"]).arg(self.folder.path().join("gateway.toml"));
        command.stdin(Stdio::null()).output().expect("the program")
    }

    /// `upgrade`, on its host and by its configuration as it is now.
    pub fn upgrade(&self, trio: &Trio) -> Output {
        let mut command = trio.gateway.command("timeout");
        command.arg("60").arg(program()).args(["upgrade", "-c"]).arg(self.folder.path().join("gateway.toml"));
        command.stdin(Stdio::null()).output().expect("the program")
    }

    /// Runs a verb that speaks to it, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).arg("--socket").arg(self.folder.path().join("control.sock"));
        command.stdin(Stdio::null()).output().expect("the program")
    }

    /// Runs a verb that must succeed, for its JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What it prints: `ready`, and its log.
    pub fn log(&self) -> &Log {
        self.process.log()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // A process that took over is nobody's child here.
        let output = self.run(&["status", "--json"]);
        let status = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        if let Some(process) = status["process"].as_u64().filter(|process| *process != u64::from(self.pid())) {
            let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
    }
}

/// The built program. `cargo test` builds it only for tests of its own package, so it is built here: a test of
/// yesterday's program would be worse than none.
pub fn program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        // For measures, where a release build is there already.
        if let Some(program) = std::env::var_os("SMTP_GATEWAY_PROGRAM") {
            return PathBuf::from(program);
        }
        let here = std::env::current_exe().expect("this program's own path");
        let release = here.ancestors().nth(2).is_some_and(|folder| folder.ends_with("release"));
        let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        cargo.args(["build", "--quiet", "--package", "smtp-gateway", "--target-dir"]).arg(target());
        if release {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo");
        assert!(status.success(), "the gateway does not build");
        target().join(if release { "release" } else { "debug" }).join("smtp-gateway")
    };
    PROGRAM.get_or_init(build).clone()
}
