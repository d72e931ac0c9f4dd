//! Three hosts and two cables: client – gateway – backend, each host a network namespace.
//!
//! Neither end has a route to the other, so a mail that arrives went through the gateway, and a client address that a
//! backend knows was told to it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The client's addresses: what a backend must come to know.
pub const CLIENT: [&str; 2] = ["192.0.2.10", "2001:db8:c::10"];
/// The gateway's addresses towards the client.
pub const FRONT: [&str; 2] = ["192.0.2.1", "2001:db8:c::1"];
/// The gateway's addresses towards the backend: what a backend sees by itself.
pub const BACK: [&str; 2] = ["198.51.100.1", "2001:db8:b::1"];
/// The backend's addresses.
pub const BACKEND: [&str; 2] = ["198.51.100.25", "2001:db8:b::25"];

/// Which of an address pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// This family's address of a pair.
    pub fn of(self, pair: [&'static str; 2]) -> &'static str {
        match self {
            Self::V4 => pair[0],
            Self::V6 => pair[1],
        }
    }

    /// The same as an address.
    pub fn ip(self, pair: [&'static str; 2]) -> IpAddr {
        self.of(pair).parse().expect("an address of this file")
    }

    /// Port 25 of this family's address of a pair.
    pub fn smtp(self, pair: [&'static str; 2]) -> SocketAddr {
        SocketAddr::new(self.ip(pair), 25)
    }
}

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
}

impl Host {
    /// Its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// A connection from this host.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.within(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)))
    }

    /// Runs something on this host. A socket stays on the host it was made on.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).expect("this host's namespace");
        // A thread of its own, since the namespace is the thread's.
        let moved = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            work()
        };
        thread::scope(|scope| scope.spawn(moved).join().expect("the work on a host"))
    }

    fn configure(&self, commands: &str) {
        batch(&["-n", &self.name], commands);
    }
}

/// The three hosts, until dropped.
#[derive(Debug)]
pub struct Trio {
    /// Where mail comes from.
    pub client: Host,
    /// Where the gateway runs.
    pub gateway: Host,
    /// Where the mail server runs.
    pub backend: Host,
}

static NEXT: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "sgt";

impl Trio {
    /// Three new hosts, every address ready for use.
    #[expect(clippy::new_without_default, reason = "a default that creates namespaces would surprise")]
    pub fn new() -> Self {
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = |role: &str| Host { name: format!("{PREFIX}-{}-{number}-{role}", std::process::id()) };
        let trio = Self { client: host("client"), gateway: host("gateway"), backend: host("backend") };
        let [client, gateway, backend] = [&trio.client.name, &trio.gateway.name, &trio.backend.name];
        batch(
            &[],
            &format!(
                "netns add {client}\nnetns add {gateway}\nnetns add {backend}\n\
                 link add client netns {gateway} type veth peer name eth0 netns {client}\n\
                 link add backend netns {gateway} type veth peer name eth0 netns {backend}\n"
            ),
        );
        trio.client.configure(&interface("eth0", CLIENT));
        trio.backend.configure(&interface("eth0", BACKEND));
        trio.gateway.configure(&format!("{}{}", interface("client", FRONT), interface("backend", BACK)));
        trio
    }

    /// Lets the backend answer strangers by way of the gateway.
    pub fn route_answers_back(&self) {
        for (option, gateway) in [("-4", BACK[0]), ("-6", BACK[1])] {
            // As `network show` prints them.
            let commands = [
                "rule add pref 25024 ipproto tcp sport 25 lookup main suppress_prefixlength 0".to_owned(),
                "rule add pref 25025 ipproto tcp sport 25 lookup 25025".to_owned(),
                format!("route replace default via {gateway} table 25025"),
            ];
            batch(&["-n", &self.backend.name, option], &commands.join("\n"));
        }
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        let Self { client, gateway, backend } = self;
        for host in [client, gateway, backend] {
            delete(&host.name);
        }
    }
}

/// Without `nodad` an IPv6 address could not be used for a second or two.
fn interface(name: &str, addresses: [&str; 2]) -> String {
    let [v4, v6] = addresses;
    format!(
        "link set lo up\nlink set {name} up\naddress add {v4}/24 dev {name}\naddress add {v6}/64 dev {name} nodad\n"
    )
}

fn batch(options: &[&str], commands: &str) {
    let mut ip = Command::new("ip");
    ip.args(options).args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ip.spawn().expect("ip, of iproute2");
    // Dropped at the end of the statement, so that `ip` sees the end.
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("ip reads");
    let output = child.wait_with_output().expect("ip ends");
    assert!(output.status.success(), "ip: {}\n{commands}", String::from_utf8_lossy(&output.stderr));
}

/// Nothing to be done about one that is gone already.
fn delete(namespace: &str) {
    let _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
}

/// Takes away what a killed test program left behind.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let ours = parts.next() == Some(PREFIX);
        if ours && parts.next().is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            delete(&name);
        }
    }
}
