//! The gateway and a sink on loopback: for what needs neither other hosts nor real servers, and so runs without root.
//!
//! Loopback has sixteen million addresses. Each scenario takes its own, so that ports need no luck.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;

use smtp_gateway::sink::{self, Event, Message, Observer, Options, Sink};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::client::Client;
use super::gateway::program;
use super::log::{Log, PATIENCE, Process};
use super::stage::temporary_folder;

/// Bits of an address that tell one of a run from another; the eleven above them tell runs that are under way together.
const RUN_BITS: u32 = 12;

/// A loopback address that no other scenario has, of this run or of one beside it.
pub fn address() -> Ipv4Addr {
    static TAKEN: AtomicU32 = AtomicU32::new(1);
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    assert!(number < 1 << RUN_BITS, "no run takes so many addresses");
    let run = std::process::id() & 0x7ff;
    // 127.0 and 127.1 are left to the machine.
    Ipv4Addr::from_bits((127 << 24) + (2 << 16) + ((run << RUN_BITS) | number))
}

/// A sink that tells what it saw.
#[derive(Debug)]
pub struct LocalSink {
    /// Where it listens.
    pub address: SocketAddr,
    events: Receiver<Event>,
    _sink: Sink,
}

impl LocalSink {
    /// Starts one that takes mail for `example.com`, `second.test` and [`super::LOCAL_DOMAIN`]; `options.listen` is filled in.
    pub fn start(options: Options) -> Self {
        Self::start_for(&["example.com", "second.test", super::LOCAL_DOMAIN], options)
    }

    /// The same for mail for these.
    pub fn start_for(local_domains: &[&str], options: Options) -> Self {
        let (observer, events) = Observer::channel();
        let listen =
            if options.listen == Options::default().listen { (address(), 2526).into() } else { options.listen };
        let local_domains = local_domains.iter().map(|domain| (*domain).to_owned()).collect();
        let sink = sink::start(Options { listen, local_domains, quiet: true, observer: Some(observer), ..options });
        let sink = sink.expect("a sink");
        Self { address: sink.address(), events, _sink: sink }
    }

    /// Waits until so many more sessions have a client, or have ended without.
    pub fn sessions(&self, count: usize) {
        let mut seen = 0;
        while seen < count {
            let event = self.events.recv_timeout(PATIENCE).expect("a session in time");
            seen += usize::from(matches!(event, Event::Client(_)));
        }
    }

    /// Who sent the next message that arrives whole.
    pub fn message_from(&self) -> Option<IpAddr> {
        self.message().client.believed
    }

    /// The next message that arrives whole.
    pub fn message(&self) -> Message {
        loop {
            match self.events.recv_timeout(PATIENCE).expect("a message in time") {
                Event::Message(message) => return message,
                Event::Client(_) | Event::Denied(_) => {}
            }
        }
    }
}

/// A gateway with one listener, in a folder of its own.
#[derive(Debug)]
pub struct LocalGateway {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
}

/// A configuration: one listener on `address`, with `listener` as more of its keys, one backend; `more` is whole sections.
/// Names are not looked up unless `more` has a `[dns]`; without a `[proof]` it proves nothing by itself; without a `[log]`
/// every session has its line, also one that brought nothing.
pub fn configuration(address: SocketAddr, listener: &str, backend: SocketAddr, identity: &str, more: &str) -> String {
    let dns = if more.contains("[dns]") { "" } else { "[dns]\nenabled = false\n" };
    let proof = if more.contains("[proof]") { "" } else { "[proof]\nenabled = false\n" };
    let log = if more.contains("[log]") { "" } else { "[log]\nlevel = \"info,observe=debug\"\n" };
    format!(
        "[server]\nhostname = \"gateway.test\"\nstate = \"state\"\nworkers = 2\n[[listener]]\naddress = \"{address}\"\n{listener}\n\
         [[backend]]\naddress = \"{backend}\"\nidentity = \"{identity}\"\n[relay]\nlocal_domains = [\"example.com\"]\n\
         {dns}{proof}{log}[control]\nsocket = \"control.sock\"\n{more}"
    )
}

impl LocalGateway {
    /// Starts it with this configuration, which names `address`, and waits until it is ready.
    pub fn start(address: SocketAddr, configuration: &str) -> Self {
        Self::start_with(address, configuration, &[])
    }

    /// The same, with these environment variables.
    pub fn start_with(address: SocketAddr, configuration: &str, environment: &[(&str, &str)]) -> Self {
        let folder = temporary_folder();
        std::fs::write(folder.path().join("gateway.toml"), configuration).expect("a configuration file");
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" run -c gateway.toml 2>&1"]).arg(program()).current_dir(folder.path());
        command.envs(environment.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the gateway");
        let process = Process::new("the gateway", child);
        process.log().wait_for_line("ready");
        Self { process, address, folder }
    }

    /// What it printed.
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `upgrade`, by its configuration as it is now.
    pub fn upgrade(&self) -> Output {
        run(self.folder(), &["upgrade", "-c", "gateway.toml", "--socket", "control.sock"])
    }

    /// The process that serves now: after an upgrade it is another one.
    pub fn serving(&self) -> u32 {
        serde_json::from_value(self.status()["process"].clone()).expect("a process id")
    }

    /// Its control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `status --json`.
    pub fn status(&self) -> serde_json::Value {
        let output = run(self.folder(), &["status", "--socket", "control.sock", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Connects from an address of loopback; nothing is read yet.
    pub fn connect_from(&self, from: Ipv4Addr) -> TcpStream {
        connect(from, self.address).expect("the gateway accepts")
    }

    /// Connects from an address of loopback, and reads the greeting.
    pub fn client(&self, from: Ipv4Addr) -> Client {
        let mut client = Client::over(self.connect_from(from));
        client.expect(2);
        client
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}

impl Drop for LocalGateway {
    fn drop(&mut self) {
        // Processes that took over are nobody's children here.
        let output = run(self.folder(), &["status", "--socket", "control.sock", "--json"]);
        let status = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        if let Some(process) = status["process"].as_u64().filter(|process| *process != u64::from(self.pid())) {
            let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
        }
    }
}

/// Connects from one address to another.
pub fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

/// Runs the program in `folder` to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).current_dir(folder).stdin(Stdio::null()).output().expect("the program")
}
