//! What is read of a frame, and what of it is nobody's business.

use gateway_common::{CONFIG_MONITOR_ONLY, Config, outcome};
use tests::kernel::available;
use tests::kernel::frame::{ACK, Extension, FIN, Frame, RST, SYN};
use tests::kernel::rig::{Judged, SHORTEST, Verdict, unlimited};

use super::{CLIENT, CLIENT_V6, drops, passes};

const CUSTOMER_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;
const MORE_FRAGMENTS: u16 = 0x2000;

/// An extension header of this kind and of so many bytes.
fn extension(kind: u8, bytes: usize) -> Extension {
    let mut rest = vec![0; bytes - 1];
    rest[0] = u8::try_from(bytes / 8 - 1).unwrap();
    Extension { kind, rest }
}

fn authentication() -> Extension {
    // Its length counts 32-bit words, less two.
    let mut rest = vec![0; 23];
    rest[0] = 4;
    Extension { kind: 51, rest }
}

/// A fragment header with this offset and "more" field.
fn fragment(offset_more: u16) -> Extension {
    let [high, low] = offset_more.to_be_bytes();
    Extension { kind: 44, rest: vec![0, high, low, 0, 0, 0, 1] }
}

/// Frames to the listener that are read to the end.
fn readable() -> Vec<Frame> {
    let v4 = || Frame::syn(CLIENT);
    let v6 = || Frame::syn(CLIENT_V6);
    let mut frames = vec![v4(), v6()];
    let tags = [vec![CUSTOMER_TAG], vec![SERVICE_TAG], vec![SERVICE_TAG, CUSTOMER_TAG], vec![CUSTOMER_TAG; 3]];
    for tags in tags.into_iter().chain([vec![CUSTOMER_TAG; 8]]) {
        frames.extend([Frame { tags: tags.clone(), ..v4() }, Frame { tags, ..v6() }]);
    }
    frames.extend((1..=10).map(|words| Frame { options: vec![1; words * 4], ..v4() }));
    // Neither "don't fragment" nor the reserved bit makes a fragment, and a first fragment with all of TCP's header is read.
    frames.extend([0, 0x4000, 0x8000, MORE_FRAGMENTS].map(|fragment| Frame { fragment, ..v4() }));
    for extensions in [
        vec![extension(0, 8)],
        vec![extension(43, 24)],
        vec![extension(60, 40)],
        vec![authentication()],
        vec![fragment(0)],
        vec![fragment(1)],
        vec![extension(60, 2048)],
        vec![extension(0, 8), extension(43, 24), authentication(), extension(60, 16)],
        vec![extension(0, 8), fragment(1), extension(60, 8)],
        vec![fragment(1), extension(60, 8), extension(60, 8), extension(60, 8), extension(60, 8)],
        vec![extension(60, 8); 8],
    ] {
        frames.push(Frame { extensions, ..v6() });
    }
    // Without a length: as long as the frame, and the stack's own segments of more than 64 KiB.
    frames.push(Frame { extensions: vec![extension(0, 8)], claimed_length: Some(0), ..v6() });
    frames.push(Frame { claimed_length: Some(0), ..v4() });
    frames.extend([6, 15].map(|data_offset| Frame { data_offset, payload: 40, ..v4() }));
    frames
}

#[test]
fn whatever_leads_to_tcp_is_followed() {
    let Some(mut rig) = available("whatever_leads_to_tcp_is_followed") else { return };
    for frame in readable() {
        passes(&mut rig, &frame, outcome::PASS_TRACKED);
    }
}

#[test]
fn a_frame_that_ends_within_a_header_passes_as_truncated() {
    let Some(mut rig) = available("a_frame_that_ends_within_a_header_passes_as_truncated") else { return };
    for frame in readable() {
        let bytes = Frame { payload: 0, claimed_length: claimed(&frame), ..frame.clone() }.bytes();
        for length in SHORTEST..bytes.len() {
            let judged = rig.judge(&bytes[..length]);
            let expect = Judged { verdict: Verdict::Pass, outcome: "truncated", is_attempt: false };
            assert_eq!(judged, expect, "{length} bytes of {frame:?}");
        }
        assert_eq!(rig.judge(&bytes).outcome, "tracked", "{frame:?}");
    }
}

/// The length that the IP header of the whole frame has.
fn claimed(frame: &Frame) -> Option<u16> {
    let header = 14 + 4 * frame.tags.len();
    let bytes = frame.bytes();
    let at = if frame.source.is_ipv4() { header + 2 } else { header + 4 };
    Some(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

#[test]
fn flags_are_read() {
    let Some(mut rig) = available("flags_are_read") else { return };
    for flags in 0..=u8::MAX {
        let frame = Frame { flags, ..Frame::ack(CLIENT) };
        assert_eq!(rig.judge(&frame.bytes()).is_attempt, flags & (SYN | ACK) == SYN, "flags {flags:#x}");
    }
    let source = rig.source(CLIENT).unwrap();
    let count = |holds: fn(u8) -> bool| u64::try_from((0..=u8::MAX).filter(|flags| holds(*flags)).count()).unwrap();
    assert_eq!(source.packets, 256);
    assert_eq!(source.syn, count(|flags| flags & (SYN | ACK) == SYN));
    assert_eq!(source.fin_rst, count(|flags| flags & (FIN | RST) != 0));
}

#[test]
fn what_is_not_for_a_listener_passes_unseen() {
    let Some(mut rig) = available("what_is_not_for_a_listener_passes_unseen") else { return };
    for source in [CLIENT, CLIENT_V6] {
        let syn = || Frame::syn(source);
        for port in [0, 24, 26, 80, 89, 587, 25 << 8, u16::MAX] {
            passes(&mut rig, &Frame { port, ..syn() }, outcome::PASS_OTHER_PORT);
        }
        for protocol in [1, 2, 17, 41, 47, 58, 59, 132] {
            passes(&mut rig, &Frame { protocol, ..syn() }, outcome::PASS_NOT_TCP);
        }
        // An Ethernet type that is nothing known, in place of a tag's.
        for kind in [0x0806, 0x0800 - 1, 0x86de, 0x8863, 46] {
            passes(&mut rig, &Frame { tags: vec![kind], ..syn() }, outcome::PASS_NOT_IP);
        }
        assert_eq!(rig.source(source), None);
    }
    let encrypted = Frame { extensions: vec![Extension { kind: 50, rest: vec![0; 23] }], ..Frame::syn(CLIENT_V6) };
    passes(&mut rig, &encrypted, outcome::PASS_EXTENSIONS);
    passes(&mut rig, &Frame { protocol: 50, ..Frame::syn(CLIENT_V6) }, outcome::PASS_EXTENSIONS);
}

#[test]
fn later_fragments_pass() {
    let Some(mut rig) = available("later_fragments_pass") else { return };
    for fragment in [3, 0x1fff, MORE_FRAGMENTS | 3, 0x4003] {
        passes(&mut rig, &Frame { fragment, ..Frame::syn(CLIENT) }, outcome::PASS_FRAGMENT);
    }
    for offset_more in [24, 25, 0xfff8] {
        let frame = Frame { extensions: vec![fragment(offset_more)], ..Frame::syn(CLIENT_V6) };
        passes(&mut rig, &frame, outcome::PASS_FRAGMENT);
    }
    // Of a first header that is not TCP, a later fragment may begin early.
    let options = Frame { extensions: vec![fragment(8), extension(60, 8)], ..Frame::syn(CLIENT_V6) };
    passes(&mut rig, &options, outcome::PASS_FRAGMENT);
}

/// A tiny first fragment hides TCP's flags from who looks at it alone, and one at the offsets 1 and 2 would overwrite them.
fn tiny_fragments() -> Vec<Frame> {
    let v4 = || Frame::syn(CLIENT);
    let v6 = |extensions| Frame { extensions, ..Frame::syn(CLIENT_V6) };
    let mut frames: Vec<_> =
        [1, 2, MORE_FRAGMENTS | 1, 0x4001].map(|fragment| Frame { fragment, ..v4() }).into_iter().collect();
    frames.extend((0..20).map(|octets| Frame { fragment: MORE_FRAGMENTS, claimed_length: Some(20 + octets), ..v4() }));
    frames.extend([8, 9, 16, 17].map(|offset_more| v6(vec![fragment(offset_more)])));
    for extensions in [vec![fragment(1)], vec![extension(0, 8), fragment(1), extension(60, 8)]] {
        let headers = u16::try_from(extensions.iter().map(|header| 1 + header.rest.len()).sum::<usize>()).unwrap();
        // From the fragment header's own end on: the chain itself may be torn apart as well.
        let first = if headers > 8 { 16 } else { 8 };
        frames.extend(
            (first..headers + 20).map(|length| Frame { claimed_length: Some(length), ..v6(extensions.clone()) }),
        );
    }
    frames
}

#[test]
fn tiny_fragments_are_dropped() {
    let Some(mut rig) = available("tiny_fragments_are_dropped") else { return };
    for frame in tiny_fragments() {
        drops(&mut rig, &frame, outcome::DROP_TINY_FRAGMENT);
    }
    // Eight octets have the port, and so few are none of this program's business when they are not for a listener.
    for octets in 4..20 {
        let frame =
            Frame { port: 80, fragment: MORE_FRAGMENTS, claimed_length: Some(20 + octets), ..Frame::syn(CLIENT) };
        passes(&mut rig, &frame, outcome::PASS_OTHER_PORT);
    }
    rig.configure(Config { flags: CONFIG_MONITOR_ONLY, ..unlimited() });
    for frame in tiny_fragments() {
        passes(&mut rig, &frame, outcome::WOULD_DROP_TINY_FRAGMENT);
    }
    rig.configure(unlimited());
    rig.allow("198.51.100.0/24");
    let tiny = Frame { fragment: MORE_FRAGMENTS, claimed_length: Some(28), ..Frame::syn(CLIENT) };
    passes(&mut rig, &tiny, outcome::PASS_FRAGMENT);
}

#[test]
fn frames_of_more_tags_than_anybody_needs_are_dropped() {
    let Some(mut rig) = available("frames_of_more_tags_than_anybody_needs_are_dropped") else { return };
    for (source, tag) in [(CLIENT, CUSTOMER_TAG), (CLIENT_V6, SERVICE_TAG)] {
        let frame = Frame { tags: vec![tag; 9], ..Frame::syn(source) };
        rig.configure(unlimited());
        drops(&mut rig, &frame, outcome::DROP_VLAN_DEPTH);
        rig.configure(Config { flags: CONFIG_MONITOR_ONLY, ..unlimited() });
        passes(&mut rig, &frame, outcome::WOULD_DROP_VLAN_DEPTH);
    }
}

/// Where the port cannot be read, lists and limits still hold for the source.
#[test]
fn what_cannot_be_read_is_judged_by_its_source() {
    let Some(mut rig) = available("what_cannot_be_read_is_judged_by_its_source") else { return };
    let chained = |source| Frame { extensions: vec![extension(60, 8); 9], ..Frame::syn(source) };
    let cut = |source| {
        let mut bytes = Frame::syn(source).bytes();
        bytes.truncate(bytes.len() - 1);
        bytes
    };
    passes(&mut rig, &chained(CLIENT_V6), outcome::PASS_EXTENSIONS);
    for source in [CLIENT, CLIENT_V6] {
        let truncated = Judged { verdict: Verdict::Pass, outcome: "truncated", is_attempt: false };
        assert_eq!(rig.judge(&cut(source)), truncated);
        rig.ban(source, tests::kernel::rig::deny(outcome::DROP_BAN));
        let dropped = Judged { verdict: Verdict::Drop, outcome: "ban", is_attempt: false };
        assert_eq!(rig.judge(&cut(source)), dropped);
    }
    drops(&mut rig, &chained(CLIENT_V6), outcome::DROP_BAN);
    rig.deny("2001:db8:8::/48", tests::kernel::rig::deny(outcome::DROP_BAN_NETWORK));
    drops(&mut rig, &chained("2001:db8:8::25"), outcome::DROP_BAN_NETWORK);
    rig.allow("2001:db8:8::/64");
    passes(&mut rig, &chained("2001:db8:8::25"), outcome::PASS_EXTENSIONS);
    rig.configure(Config {
        unknown_syn_interval_ns: 1_000_000_000,
        unknown_syn_burst_ns: 2_000_000_000,
        ..unlimited()
    });
    for source in ["2001:db8:9::25", "0:1::25"] {
        let frame = if source == "0:1::25" { Frame::syn(source) } else { chained(source) };
        let (mut passed, mut dropped) = (0, 0);
        for _ in 0..10 {
            match rig.judge(&frame.bytes()) {
                Judged { verdict: Verdict::Pass, .. } => passed += 1,
                Judged { outcome, .. } => {
                    assert_eq!(outcome, "unknown_rate");
                    dropped += 1;
                }
            }
        }
        assert!(passed <= 4 && dropped >= 6, "{source}: {passed} passed, {dropped} were dropped");
    }
}

/// A tunnel's packets have no Ethernet header.
#[test]
fn packets_without_an_ethernet_header_are_read_from_the_ip_header_on() {
    let Some(mut rig) = available("packets_without_an_ethernet_header") else { return };
    for frame in readable().iter().filter(|frame| frame.tags.is_empty()) {
        let packet = frame.bytes().split_off(14);
        let judged = rig.judge_ip(&packet);
        assert_eq!((judged.verdict, judged.outcome), (Verdict::Pass, "tracked"), "{frame:?}");
    }
    rig.ban(CLIENT, tests::kernel::rig::deny(outcome::DROP_BAN));
    assert_eq!(rig.judge_ip(&Frame::syn(CLIENT).bytes().split_off(14)).outcome, "ban");
    for version in [0, 0x10, 0x50, 0xf0] {
        let mut packet = Frame::syn(CLIENT).bytes().split_off(14);
        packet[0] = version;
        assert_eq!(rig.judge_ip(&packet).outcome, "not_ip");
    }
}

#[test]
fn headers_that_contradict_themselves_pass_as_malformed() {
    let Some(mut rig) = available("headers_that_contradict_themselves_pass_as_malformed") else { return };
    for version_byte in [0x00, 0x40, 0x44, 0x35, 0x55, 0x65, 0xf5] {
        let frame = Frame { version_byte: Some(version_byte), ..Frame::syn(CLIENT) };
        passes(&mut rig, &frame, outcome::PASS_MALFORMED);
    }
    for version_byte in [0x00, 0x45, 0x50, 0x70, 0xff] {
        let frame = Frame { version_byte: Some(version_byte), ..Frame::syn(CLIENT_V6) };
        passes(&mut rig, &frame, outcome::PASS_MALFORMED);
    }
    for length in [1, 19, 20, 39] {
        let frame = Frame { claimed_length: Some(length), ..Frame::syn(CLIENT) };
        passes(&mut rig, &frame, outcome::PASS_MALFORMED);
    }
    for length in [0, 1, 19] {
        let frame = Frame { claimed_length: Some(length), ..Frame::syn(CLIENT_V6) };
        passes(&mut rig, &frame, outcome::PASS_MALFORMED);
    }
    for data_offset in 0..5 {
        passes(&mut rig, &Frame { data_offset, ..Frame::syn(CLIENT) }, outcome::PASS_MALFORMED);
    }
}

#[test]
fn ports_are_told_apart() {
    let Some(mut rig) = available("ports_are_told_apart") else { return };
    let listeners = [0, 25, 63, 64, 587, 2525, 65535];
    rig.set_ports(&listeners);
    for port in (0..=130).chain(500..=600).chain(2500..=2530).chain(65400..=65535) {
        let outcome = if listeners.contains(&port) { outcome::PASS_TRACKED } else { outcome::PASS_OTHER_PORT };
        passes(&mut rig, &Frame { port, ..Frame::ack(CLIENT) }, outcome);
    }
}

#[test]
fn an_address_that_no_source_has_is_nobodys() {
    let Some(mut rig) = available("an_address_that_no_source_has_is_nobodys") else { return };
    rig.ban("1.2.3.4", tests::kernel::rig::deny(outcome::DROP_BAN));
    // The last one has the key of the banned one.
    for source in ["::", "::1", "::ffff:1.2.3.4", "0:1::", "0:ffff:102:304::"] {
        passes(&mut rig, &Frame::syn(source), outcome::PASS_IMPOSSIBLE_SOURCE);
    }
    assert_eq!(rig.sources(), 0);
}

#[test]
fn without_a_configuration_everything_passes() {
    let Some(mut rig) = available("without_a_configuration_everything_passes") else { return };
    for magic in [0, 1, unlimited().magic + 1] {
        rig.configure(Config { magic, ..unlimited() });
        passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_UNCONFIGURED);
    }
    assert_eq!(rig.sources(), 0);
}
