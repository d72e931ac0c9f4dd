//! The flood: whole IPv4 packets, SYN after SYN, from sources that are not ours. Paced, and bounded in count and time.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Who the packets claim to be from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sources {
    /// The banned prefix.
    Banned,
    /// Anybody at all, hardly anybody twice, in this flood or another.
    Forged,
    /// 64k that are nobody's, again and again.
    Again,
    /// By turns.
    Both,
}

/// The banned prefix.
pub(super) const BANNED: &str = "203.0.113.0/24";
const BANNED_BASE: u32 = u32::from_be_bytes([203, 0, 113, 0]);
/// Addresses of the public Internet, every one: 32.0.0.0/3.
const FORGED_BASE: u32 = 32 << 24;
const FORGED_MASK: u32 = (1 << 29) - 1;
/// Sixteen bits of them.
const AGAIN_MASK: u32 = 0x000f_0fff;

/// So many packets a second, in bursts of a few.
const BURST: u32 = 32;
/// A flood ends by itself, whatever else fails.
const SECONDS_MAX: u64 = 20;
const HEADERS: usize = 20 + 20;

/// IPPROTO_RAW of netinet/in.h: the header is in the packet.
const RAW: i32 = 255;

/// Sends until `stop`; how many packets a second went out. Runs on the flooder's host.
pub(super) fn send(to: SocketAddrV4, sources: Sources, rate: u32, stop: &AtomicBool) -> Result<f64, String> {
    let said = |error: std::io::Error| format!("the flood: {error}");
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).map_err(said)?;
    let address = SockAddr::from(to);
    let started = Instant::now();
    let deadline = started + Duration::from_secs(SECONDS_MAX);
    let count_max = u64::from(rate) * SECONDS_MAX;
    let mut random = seed();
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) && sent < count_max && Instant::now() < deadline {
        for _ in 0..BURST {
            // What has no room on the way is lost, as it would be elsewhere.
            if socket.send_to(&packet(to, sources, next(&mut random), sent), &address).is_ok() {
                sent += 1;
            }
        }
        let due = started + Duration::from_secs_f64(sent as f64 / f64::from(rate));
        sleep(due.saturating_duration_since(Instant::now()));
    }
    if sent == 0 {
        return Err("the flood: not one packet could be sent".to_owned());
    }
    Ok(sent as f64 / started.elapsed().as_secs_f64())
}

/// Another for every flood: who came in the last one is known as one that comes again, and let in.
fn seed() -> u64 {
    static FLOODS: AtomicU64 = AtomicU64::new(1);
    FLOODS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// xorshift64: repeatable, and good enough for addresses.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Of a random number these many bits, from bit `at` on.
fn bits(random: u64, at: u32, mask: u32) -> u32 {
    u32::try_from(random >> at & u64::from(mask)).unwrap_or_default()
}

fn packet(to: SocketAddrV4, sources: Sources, random: u64, number: u64) -> [u8; HEADERS] {
    let is_banned = sources == Sources::Banned || sources == Sources::Both && number.is_multiple_of(2);
    let (base, mask) = match sources {
        _ if is_banned => (BANNED_BASE, 0xff),
        Sources::Again => (FORGED_BASE, AGAIN_MASK),
        Sources::Banned | Sources::Forged | Sources::Both => (FORGED_BASE, FORGED_MASK),
    };
    let from = base | bits(random, 0, mask);
    let mut packet = [0; HEADERS];
    let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
    // Version and length; time to live and TCP. The kernel fills in length, number and checksum.
    put(0, &[0x45]);
    put(8, &[64, 6]);
    put(12, &Ipv4Addr::from(from).octets());
    put(16, &to.ip().octets());
    // 1024 and up.
    let port = 1024 | bits(random, 32, 0xffff);
    put(20, &port.to_be_bytes()[2..]);
    put(22, &to.port().to_be_bytes());
    put(24, &bits(random, 16, u32::MAX).to_be_bytes());
    // Twenty bytes of header, SYN, and a window.
    put(32, &[0x50, 0x02, 0xff, 0xff]);
    let checksum = checksum(&packet);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// TCP's (RFC 9293, section 3.1), over addresses, protocol, length and header.
fn checksum(packet: &[u8; HEADERS]) -> u16 {
    let words = packet[12..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>() + 6 + 20;
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_sums_up() {
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 25);
        let packet = packet(to, Sources::Both, 0x1234_5678_9abc_def0, 1);
        assert_eq!(checksum(&packet), 0);
        assert_eq!(&packet[22..24], &[0, 25]);
        assert_eq!(packet[12] >> 5, 1);
    }

    #[test]
    fn two_floods_are_not_from_the_same_sources() {
        let sources = |_| {
            let mut random = seed();
            (0..100).map(|_| bits(next(&mut random), 0, FORGED_MASK)).collect::<Vec<_>>()
        };
        let [first, second] = [0, 1].map(sources);
        assert!(first.iter().all(|source| !second.contains(source)));
    }
}
