//! What waits in the kernel between two sockets of this machine: the event behind "the other side reads no more".

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use super::log::PATIENCE;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// Looks that must show the same.
const LOOKS: usize = 8;

/// Octets under way from one socket to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    /// Written, and not yet taken by the other socket.
    unsent: u64,
    /// Taken, and not yet read.
    unread: u64,
}

/// Waits until `to` has no room for what `from` has written: nothing moves, and something is left.
pub fn until_full(from: SocketAddr, to: SocketAddr) {
    until_settled(from, to, |waiting| waiting.unsent > 0);
}

/// Waits until all has arrived that has room, read or not.
pub fn until_arrived(from: SocketAddr, to: SocketAddr) {
    until_settled(from, to, |waiting| waiting.unread > 0);
}

fn until_settled(from: SocketAddr, to: SocketAddr, wanted: impl Fn(Waiting) -> bool) {
    let since = Instant::now();
    let (mut last, mut looks) = (waiting(from, to), 0);
    while looks < LOOKS {
        assert!(since.elapsed() < PATIENCE, "what waits between {from} and {to} does not settle: {last:?}");
        thread::sleep(PAUSE);
        let now = waiting(from, to);
        looks = if now == last && wanted(now) { looks + 1 } else { 0 };
        last = now;
    }
}

/// IPv4 only, as all loopback addresses here are.
fn waiting(from: SocketAddr, to: SocketAddr) -> Waiting {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table of connections");
    let (mut unsent, mut unread) = (0, 0);
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, _, queues, ..] = words[..] else { continue };
        let Some((sending, receiving)) = queues.split_once(':') else { continue };
        if (local, remote) == (&*hex(from), &*hex(to)) {
            unsent = u64::from_str_radix(sending, 16).unwrap_or_default();
        } else if (local, remote) == (&*hex(to), &*hex(from)) {
            unread = u64::from_str_radix(receiving, 16).unwrap_or_default();
        }
    }
    Waiting { unsent, unread }
}

fn hex(address: SocketAddr) -> String {
    let IpAddr::V4(ip) = address.ip() else { return String::new() };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())
}
