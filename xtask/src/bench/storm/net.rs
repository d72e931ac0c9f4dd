//! Three hosts and two cables, client – gateway – flooder, each host a network namespace. Gone when dropped.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::output;

/// The gateway's address towards the client, and its cards' names.
pub(super) const FRONT: &str = "192.0.2.1";
pub(super) const CARDS: [&str; 2] = ["client", "flood"];

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
}

/// All three.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) client: Host,
    pub(super) gateway: Host,
    pub(super) flooder: Host,
}

impl Hosts {
    /// `number` tells these three from others of the same run.
    pub(super) fn new(number: usize) -> Result<Self, String> {
        let host = |role: &str| {
            let name = format!("sgs-{}-{number}-{role}", std::process::id());
            output(Command::new("ip").args(["netns", "add", &name])).map(|_| Host { name })
        };
        let hosts = Self { client: host("client")?, gateway: host("gateway")?, flooder: host("flooder")? };
        let Self { client, gateway, flooder } = &hosts;
        for (card, peer) in CARDS.into_iter().zip([client, flooder]) {
            gateway.ip(&format!("link add {card} type veth peer name eth0 netns {}", peer.name))?;
        }
        client.configure("eth0", "192.0.2.10/24")?;
        flooder.configure("eth0", "198.51.100.66/24")?;
        gateway.configure(CARDS[0], "192.0.2.1/24")?;
        gateway.configure(CARDS[1], "198.51.100.1/24")?;
        // The world is where the flood comes from: there go the answers to forged sources.
        gateway.ip("route add default via 198.51.100.66")?;
        flooder.ip("route add 192.0.2.0/24 via 198.51.100.1")?;
        // Where a flood goes that meets nobody: the card at the cable's end is not the one that is named, and lets it lie.
        flooder.ip("link add nowhere type veth peer name end")?;
        flooder.ip("link set end up")?;
        flooder.configure("nowhere", "192.168.77.1/24")?;
        flooder.ip(&format!("neighbour add {NOWHERE} lladdr 02:00:00:00:00:01 dev nowhere"))?;
        Ok(hosts)
    }
}

/// An address that no host has.
pub(super) const NOWHERE: &str = "192.168.77.2";

impl Host {
    /// A program on this host.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    /// Runs something on a thread of this host. A socket stays on the host it was made on.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        let namespace = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let moved = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| format!("setns: {error}"))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(moved).join()).unwrap_or_else(|_| Err("the work panicked".to_owned()))
    }

    fn ip(&self, words: &str) -> Result<(), String> {
        output(Command::new("ip").args(["-n", &self.name]).args(words.split(' '))).map(drop)
    }

    fn configure(&self, card: &str, address: &str) -> Result<(), String> {
        self.ip("link set lo up")?;
        self.ip(&format!("link set {card} up"))?;
        self.ip(&format!("address add {address} dev {card}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // One that cannot be removed is in nobody's way.
        let _ = output(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
