//! The program against the IP stack itself: what the stack takes for a connection attempt, the program judges, however it is
//! wrapped up or torn apart.
//!
//! A TAP device is the cable: what is written into it arrives on the card, and the stack's answers are read from it. Whether the
//! stack took an attempt is whether a SYN-ACK comes back before the answer to a marker that is sent after it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData};
use gateway_common::{BanRow, Deny, SourceKey, ban_bit, ban_row, maps, outcome};
use proptest::prelude::*;
use smtp_gateway::config::{Xdp as Wanted, XdpMode};
use smtp_gateway::kernel::{Attachment, Mode, Program, Settings};
use tests::kernel::available;
use tests::kernel::frame::{Extension, Frame};
use tests::kernel::rig::{deny, key};
use tests::peers::net::{Host, Trio};
use tests::peers::tun;

const V4: &str = "203.0.113.7";
const V6: &str = "2001:db8:7::25";
/// A source of neither family that is ever banned, and a port that nobody listens on.
const MARKER: &str = "203.0.113.250";
const CLOSED: u16 = 9;
const PRIORITY_TAG: u16 = 0x8100;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 4;

/// A host whose one listener is reached by a cable of ours.
struct Cable {
    tap: File,
    host: Host,
    next_port: u16,
    _listener: TcpListener,
    _trio: Trio,
}

impl Cable {
    fn new() -> Self {
        let trio = Trio::new();
        let host = trio.backend.clone();
        for command in [
            "tuntap add dev tap0 mode tap",
            "link set tap0 address 02:00:00:00:00:01",
            "link set tap0 up",
            "address add 192.0.2.1/32 dev tap0",
            "address add 2001:db8::1/128 dev tap0 nodad",
            "route add 203.0.113.0/24 dev tap0",
            "route add 2001:db8:7::/64 dev tap0",
            "neighbour add 203.0.113.7 lladdr 02:00:00:00:00:02 dev tap0",
            "neighbour add 203.0.113.250 lladdr 02:00:00:00:00:02 dev tap0",
            "neighbour add 2001:db8:7::25 lladdr 02:00:00:00:00:02 dev tap0",
        ] {
            let status = host.command("ip").args(command.split(' ')).status().unwrap();
            assert!(status.success(), "{command}");
        }
        let tap = host.within(|| tun::open_tap("tap0"));
        rustix::io::ioctl_fionbio(&tap, true).unwrap();
        let listener = host.within(|| TcpListener::bind("[::]:25")).unwrap();
        Self { tap, host, next_port: 1024, _listener: listener, _trio: trio }
    }

    /// Whether the stack answers these packets of one attempt with a SYN-ACK. `packets` makes them for a port of the client's.
    fn is_accepted(&mut self, packets: impl Fn(u16) -> Vec<Vec<u8>>) -> bool {
        self.next_port += 1;
        let port = self.next_port;
        let marker = sealed(&Frame { port: CLOSED, ..Frame::syn(MARKER) }, port);
        for packet in packets(port).into_iter().chain([marker]) {
            self.tap.write_all(&packet).unwrap();
        }
        let (end, mut is_accepted) = (Instant::now() + Duration::from_secs(10), false);
        loop {
            match self.answer() {
                Some((to, SYN_ACK)) if to == port => is_accepted = true,
                // The marker's.
                Some((to, flags)) if to == port && flags & RST != 0 => return is_accepted,
                Some(_) => {}
                None => assert!(Instant::now() < end, "no answer to the marker"),
            }
        }
    }

    /// The next TCP segment that the host sends: the port it is for, and its flags.
    fn answer(&mut self) -> Option<(u16, u8)> {
        let mut frame = [0; 2048];
        let length = self.tap.read(&mut frame).ok()?;
        let header = match frame[12..14] {
            [8, 0] if frame[ETHERNET + 9] == 6 => ETHERNET + IPV4,
            [0x86, 0xdd] if frame[ETHERNET + 6] == 6 => ETHERNET + IPV6,
            _ => return Some((0, 0)),
        };
        (length >= header + 20)
            .then(|| (u16::from_be_bytes([frame[header + 2], frame[header + 3]]), frame[header + 13]))
    }

    /// The program, on the card, with both sources banned.
    fn filtered(&self, mode: XdpMode) -> Attachment {
        let wanted = Wanted { interfaces: vec!["tap0".to_owned()], mode, ..Wanted::default() };
        let attachment = self.host.within(|| Attachment::new(Program::load(None).unwrap(), &wanted)).unwrap();
        let card = &self.host.within(|| attachment.cards()).unwrap()[0];
        assert_ne!(card.mode, Mode::Off, "{card:?}");
        attachment.with(|program| {
            program.set_ports(&[25]).unwrap();
            program.configure(&Settings::default()).unwrap();
            ban(program, V4);
            ban(program, V6);
        });
        attachment
    }
}

fn ban(program: &Program, address: &str) {
    let (key, deny) = (key(address), deny(outcome::DROP_BAN));
    match address.parse().unwrap() {
        IpAddr::V4(address) => {
            let mut row = BanRow::default();
            assert!(row.put(address.octets(), &deny));
            array::<BanRow>(program, maps::BANS4).set(ban_row(key), row, 0).unwrap();
        }
        IpAddr::V6(_) => {
            let map = Map::from_map_data(program.map(maps::BANS).unwrap()).unwrap();
            HashMap::<_, SourceKey, Deny>::try_from(map).unwrap().insert(key, deny, 0).unwrap();
        }
    }
    let (word, mask) = ban_bit(key);
    let mut bits = array::<u64>(program, maps::BITS);
    let known = bits.get(&word, 0).unwrap();
    bits.set(word, known | mask, 0).unwrap();
}

fn array<V: aya::Pod>(program: &Program, name: &str) -> Array<MapData, V> {
    Map::from_map_data(program.map(name).unwrap()).unwrap().try_into().unwrap()
}

/// The frame with checksums that the stack takes, tags of no VLAN, and this port of the client's.
fn sealed(frame: &Frame, port: u16) -> Vec<u8> {
    let mut bytes = frame.bytes();
    for tag in 0..frame.tags.len() {
        bytes[ETHERNET + tag * 4 + 1] = 0;
    }
    let ip = ETHERNET + frame.tags.len() * 4;
    let headers = match frame.source {
        IpAddr::V4(_) => IPV4 + frame.options.len(),
        IpAddr::V6(_) => IPV6 + frame.extensions.iter().map(|header| 1 + header.rest.len()).sum::<usize>(),
    };
    let tcp = ip + headers;
    bytes[tcp..tcp + 2].copy_from_slice(&port.to_be_bytes());
    let addresses = if frame.source.is_ipv4() { ip + 12..ip + 20 } else { ip + 8..ip + 40 };
    let length = u16::try_from(bytes.len() - tcp).unwrap();
    let pseudo = [&bytes[addresses], &[0, 6], &length.to_be_bytes(), &bytes[tcp..]].concat();
    let sum = checksum(&pseudo);
    bytes[tcp + 16..tcp + 18].copy_from_slice(&sum);
    seal_ipv4(&mut bytes, frame);
    bytes
}

/// The IPv4 header's own checksum.
fn seal_ipv4(bytes: &mut [u8], frame: &Frame) {
    if frame.source.is_ipv4() {
        let ip = ETHERNET + frame.tags.len() * 4;
        bytes[ip + 10..ip + 12].fill(0);
        let sum = checksum(&bytes[ip..ip + IPV4 + frame.options.len()]);
        bytes[ip + 10..ip + 12].copy_from_slice(&sum);
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()).to_be_bytes()
}

/// The whole packet, in fragments that end at these multiples of eight octets, in this order. The extension headers that stand
/// before the fragments are `before`; the others are torn apart with the segment.
fn fragments(frame: &Frame, port: u16, before: usize, ends: &[usize], is_backwards: bool) -> Vec<Vec<u8>> {
    let whole = sealed(frame, port);
    let ip = ETHERNET + frame.tags.len() * 4;
    let unfragmentable = match frame.source {
        IpAddr::V4(_) => IPV4 + frame.options.len(),
        IpAddr::V6(_) => IPV6 + frame.extensions[..before].iter().map(|header| 1 + header.rest.len()).sum::<usize>(),
    };
    let (head, body) = whole.split_at(ip + unfragmentable);
    let mut starts: Vec<_> =
        [0].into_iter().chain(ends.iter().map(|end| end * 8)).filter(|at| *at < body.len()).collect();
    starts.sort_unstable();
    starts.dedup();
    let next = starts.iter().skip(1).copied().chain([body.len()]);
    let mut packets: Vec<_> = starts
        .iter()
        .zip(next)
        .map(|(&from, to)| fragment(frame, head, ip, &body[from..to], from, to < body.len()))
        .collect();
    if is_backwards {
        packets.reverse();
    }
    packets
}

fn fragment(frame: &Frame, head: &[u8], ip: usize, part: &[u8], from: usize, has_more: bool) -> Vec<u8> {
    let mut packet = head.to_vec();
    let units = u16::try_from(from / 8).unwrap();
    if frame.source.is_ipv4() {
        let total = u16::try_from(head.len() - ip + part.len()).unwrap();
        packet[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
        packet[ip + 6..ip + 8].copy_from_slice(&(units | u16::from(has_more) << 13).to_be_bytes());
        seal_ipv4(&mut packet, frame);
        packet.extend(part);
        return packet;
    }
    // The last header before the fragments names the fragment header, and that what it named.
    let at = next_header_at(&packet, ip);
    let named = std::mem::replace(&mut packet[at], 44);
    packet.extend([named, 0]);
    packet.extend((units << 3 | u16::from(has_more)).to_be_bytes());
    packet.extend([0, 0, 0, 9]);
    packet.extend(part);
    let payload = u16::try_from(packet.len() - ip - IPV6).unwrap();
    packet[ip + 4..ip + 6].copy_from_slice(&payload.to_be_bytes());
    packet
}

/// Where the last of the headers of a packet that ends with headers says what comes next.
fn next_header_at(packet: &[u8], ip: usize) -> usize {
    let (mut at, mut start) = (ip + 6, ip + IPV6);
    while start < packet.len() {
        at = start;
        start += (usize::from(packet[start + 1]) + 1) * 8;
    }
    at
}

/// Six octets of padding in an options header; more in a row the stack would not take.
fn padding(kind: u8) -> Extension {
    Extension { kind, rest: vec![0; 7] }
}

/// One way to wrap an attempt up.
#[derive(Debug, Clone)]
struct Wrapped {
    frame: Frame,
    /// Extension headers that stand before the fragments, and where those end; none: not in fragments.
    torn: Option<(usize, Vec<usize>, bool)>,
}

impl Wrapped {
    fn whole(frame: Frame) -> Self {
        Self { frame, torn: None }
    }

    fn packets(&self, port: u16) -> Vec<Vec<u8>> {
        match &self.torn {
            None => vec![sealed(&self.frame, port)],
            Some((before, ends, is_backwards)) => fragments(&self.frame, port, *before, ends, *is_backwards),
        }
    }
}

/// What the stack takes for an attempt: asserted, for of what it does not take nothing is shown.
fn wrapped() -> Vec<Wrapped> {
    let (v4, v6) = (|| Frame::syn(V4), |extensions| Frame { extensions, ..Frame::syn(V6) });
    let mut all = vec![Wrapped::whole(v4()), Wrapped::whole(v6(vec![]))];
    for tags in [1, 3, 8] {
        let tags = vec![PRIORITY_TAG; tags];
        all.push(Wrapped::whole(Frame { tags: tags.clone(), ..v4() }));
        all.push(Wrapped::whole(Frame { tags, ..v6(vec![]) }));
    }
    for count in [1, 5, 8, 9, 20] {
        all.push(Wrapped::whole(v6(vec![padding(60); count])));
    }
    all.push(Wrapped::whole(Frame { claimed_length: Some(0), ..v6(vec![padding(0)]) }));
    all.push(Wrapped::whole(Frame { options: vec![1; 40], ..v4() }));
    for is_backwards in [false, true] {
        for ends in [vec![1], vec![2], vec![3], vec![1, 2]] {
            all.push(Wrapped {
                frame: Frame { fragment: 0, payload: 20, ..v4() },
                torn: Some((0, ends, is_backwards)),
            });
        }
        let frame = Frame { payload: 20, ..v6(vec![padding(60); 5]) };
        all.push(Wrapped { frame, torn: Some((1, vec![7], is_backwards)) });
    }
    all
}

#[test]
fn what_the_stack_takes_for_an_attempt_is_judged() {
    if available("what_the_stack_takes_for_an_attempt_is_judged").is_none() {
        return;
    }
    let mut cable = Cable::new();
    for wrapped in wrapped() {
        assert!(cable.is_accepted(|port| wrapped.packets(port)), "the stack itself: {wrapped:?}");
    }
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let attachment = cable.filtered(mode);
        for wrapped in wrapped() {
            assert!(!cable.is_accepted(|port| wrapped.packets(port)), "{mode:?}: {wrapped:?}");
        }
        drop(attachment);
    }
}

/// Any wrapping at all, as far as the stack could take it.
fn any_wrapping() -> impl Strategy<Value = Wrapped> {
    let kinds = prop::collection::vec(prop::sample::select(vec![0_u8, 43, 60, 60, 60]), 0..12);
    let torn = prop::option::of((0_usize..4, prop::collection::vec(1_usize..12, 1..4), any::<bool>()));
    let claimed = prop::option::weighted(0.1, Just(0));
    (any::<bool>(), 0_usize..10, kinds, torn, claimed, 0_usize..40, 0_usize..=10).prop_map(
        |(is_v4, tags, kinds, torn, claimed_length, payload, words)| {
            let tags = vec![PRIORITY_TAG; tags];
            let base = Frame { tags, payload, ..Frame::syn(if is_v4 { V4 } else { V6 }) };
            if is_v4 {
                let frame = Frame { fragment: 0, options: vec![1; words * 4], ..base };
                return Wrapped { frame, torn };
            }
            let extensions: Vec<_> = kinds.into_iter().map(padding).collect();
            let torn = torn.map(|(before, ends, order)| (before.min(extensions.len()), ends, order));
            Wrapped { frame: Frame { extensions, claimed_length, ..base }, torn }
        },
    )
}

#[test]
fn no_wrapping_gets_a_banned_source_in() {
    if available("no_wrapping_gets_a_banned_source_in").is_none() {
        return;
    }
    let mut cable = Cable::new();
    let attachment = cable.filtered(XdpMode::Native);
    let cable = RefCell::new(&mut cable);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let property = |wrapped: Wrapped| {
        prop_assert!(!cable.borrow_mut().is_accepted(|port| wrapped.packets(port)));
        Ok(())
    };
    runner.run(&any_wrapping(), property).unwrap();
    drop(attachment);
}
