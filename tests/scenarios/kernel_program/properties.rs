//! Whatever arrives: the program agrees with a plain reading of the headers.

use gateway_common::outcome;
use proptest::prelude::*;
use tests::kernel::available;
use tests::kernel::frame::{Extension, Frame};
use tests::kernel::rig::{Judged, Rig, SHORTEST, Verdict, deny};

/// What a frame is, read without hurry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// A segment to the listener.
    Segment {
        is_attempt: bool,
        /// Whether a source can have this address.
        is_possible: bool,
    },
    /// Nobody can say whether it is one; the outcome says why.
    Unreadable(u32),
    /// Nothing of the listener's, under this outcome.
    Other(u32),
    /// Never let in, for this cause.
    Refused(u32),
}

use Reading::{Other, Refused, Segment, Unreadable};

impl Reading {
    /// With nobody listed and no limit: what becomes of it, the outcome, and whether it counts as an attempt.
    fn unlisted(self) -> (Verdict, u32, bool) {
        match self {
            Segment { is_attempt, is_possible: true } => (Verdict::Pass, outcome::PASS_TRACKED, is_attempt),
            Segment { is_attempt, .. } => (Verdict::Pass, outcome::PASS_IMPOSSIBLE_SOURCE, is_attempt),
            Unreadable(outcome::PASS_FRAGMENT) => (Verdict::Drop, outcome::DROP_TINY_FRAGMENT, false),
            Unreadable(why) | Other(why) => (Verdict::Pass, why, false),
            Refused(cause) => (Verdict::Drop, cause, false),
        }
    }

    /// With everybody banned.
    fn banned(self) -> Verdict {
        match self {
            Segment { is_attempt: true, .. } | Unreadable(_) | Refused(_) => Verdict::Drop,
            Segment { .. } | Other(_) => Verdict::Pass,
        }
    }
}

fn read(frame: &[u8]) -> Reading {
    let Some(mut rest) = frame.get(12..) else { return Other(outcome::PASS_TRUNCATED) };
    for _ in 0..=8 {
        match word(rest, 0) {
            None => return Other(outcome::PASS_TRUNCATED),
            Some(0x0800) => return ipv4(&rest[2..]),
            Some(0x86dd) => return ipv6(&rest[2..]),
            // The last tag's type is read, what follows it is not.
            Some(0x8100 | 0x88a8) => rest = rest.get(4..).unwrap_or_default(),
            Some(_) => return Other(outcome::PASS_NOT_IP),
        }
    }
    Refused(outcome::DROP_VLAN_DEPTH)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]))
}

fn ipv4(packet: &[u8]) -> Reading {
    let Some(header) = packet.get(..20) else { return Other(outcome::PASS_TRUNCATED) };
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Other(outcome::PASS_MALFORMED);
    }
    if header[9] != 6 {
        return Other(outcome::PASS_NOT_TCP);
    }
    let (total, fragment) = (usize::from(word(header, 2).unwrap()), word(header, 6).unwrap());
    match fragment & 0x1fff {
        0 => {}
        1 | 2 => return Unreadable(outcome::PASS_FRAGMENT),
        _ => return Other(outcome::PASS_FRAGMENT),
    }
    let octets = match total {
        0 => 20,
        total if total < length => return Other(outcome::PASS_MALFORMED),
        total => total - length,
    };
    tcp(packet.get(length..).unwrap_or_default(), octets, fragment & 0x2000 != 0, true)
}

fn ipv6(packet: &[u8]) -> Reading {
    let Some(header) = packet.get(..40) else { return Other(outcome::PASS_TRUNCATED) };
    if header[0] >> 4 != 6 {
        return Other(outcome::PASS_MALFORMED);
    }
    let (mut next, mut at, mut is_first) = (header[6], 40, false);
    let end = match word(header, 4).unwrap() {
        0 if next == 0 => usize::MAX,
        payload => 40 + usize::from(payload),
    };
    let beyond = |is_first| if is_first { Unreadable(outcome::PASS_FRAGMENT) } else { Other(outcome::PASS_MALFORMED) };
    for _ in 0..8 {
        match next {
            6 => break,
            0 | 43 | 44 | 51 | 60 => {}
            50 => return Other(outcome::PASS_EXTENSIONS),
            _ => return Other(outcome::PASS_NOT_TCP),
        }
        if at + 8 > end {
            return beyond(is_first);
        }
        let Some(extension) = packet.get(at..at + 8) else { return Unreadable(outcome::PASS_TRUNCATED) };
        let length = usize::from(extension[1]);
        at += match next {
            44 => match (word(extension, 2).unwrap() >> 3, extension[0]) {
                (0, _) => {
                    is_first |= extension[3] & 1 == 1;
                    8
                }
                (1 | 2, 6) => return Unreadable(outcome::PASS_FRAGMENT),
                _ => return Other(outcome::PASS_FRAGMENT),
            },
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = extension[0];
    }
    if next != 6 {
        return Unreadable(outcome::PASS_EXTENSIONS);
    }
    if at > end {
        return beyond(is_first);
    }
    tcp(packet.get(at..).unwrap_or_default(), end - at, is_first, header[8..10] != [0, 0])
}

/// `octets` are those that the packet says it has of TCP.
fn tcp(segment: &[u8], octets: usize, is_first_fragment: bool, is_possible: bool) -> Reading {
    let port = word(segment, 2);
    if octets < 20 {
        return match port {
            _ if !is_first_fragment => Other(outcome::PASS_MALFORMED),
            Some(port) if octets >= 4 && port != 25 => Other(outcome::PASS_OTHER_PORT),
            _ => Unreadable(outcome::PASS_FRAGMENT),
        };
    }
    let Some(header) = segment.get(..20) else { return Unreadable(outcome::PASS_TRUNCATED) };
    match (port, header[12] >> 4) {
        (Some(25), 5..) => Segment { is_attempt: header[13] & 0x12 == 2, is_possible },
        (Some(25), _) => Other(outcome::PASS_MALFORMED),
        _ => Other(outcome::PASS_OTHER_PORT),
    }
}

/// Frames that are nearly right: only those lead far into the program.
fn nearly_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let source = prop_oneof![Just("198.51.100.7"), Just("2001:db8:7::25"), Just("::1")];
    let kind = prop_oneof![8 => prop::sample::select(vec![0_u8, 43, 44, 51, 60]), 1 => any::<u8>()];
    let extension = (kind, prop::collection::vec(any::<u8>(), 7..=7), 0_usize..4).prop_map(|(kind, mut rest, more)| {
        rest[0] = u8::try_from(more).unwrap_or_default();
        rest.resize(7 + more * 8, 0);
        Extension { kind, rest }
    });
    let frame = (
        source,
        any::<u8>(),
        prop::collection::vec(prop::sample::select(vec![0x8100_u16, 0x88a8]), 0..10),
        0_usize..=10,
        prop::collection::vec(extension, 0..10),
        0_usize..64,
    );
    let mutations = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (frame, mutations, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(frame, mutations, end, is_cut)| {
        let (source, flags, tags, words, extensions, payload) = frame;
        let options = vec![1; words * 4];
        let frame = Frame { flags, tags, options, extensions, payload, fragment: 0, ..Frame::syn(source) };
        let mut bytes = frame.bytes();
        for (index, value) in mutations {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if is_cut {
            bytes.truncate(SHORTEST.max(end.index(bytes.len())));
        }
        bytes
    })
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => nearly_a_frame(), 1 => prop::collection::vec(any::<u8>(), SHORTEST..300)]
}

fn runner(cases: u32) -> proptest::test_runner::TestRunner {
    proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

/// Nothing is dropped of nobody's but what was made to be misread.
#[test]
fn every_byte_string_is_judged_as_a_plain_reading_of_it_says() {
    let Some(rig) = available("every_byte_string_is_judged_as_a_plain_reading_of_it_says") else { return };
    let rig = std::cell::RefCell::new(rig);
    let property = |frame: Vec<u8>| {
        let judged = rig.borrow_mut().judge(&frame);
        let (verdict, outcome, is_attempt) = read(&frame).unlisted();
        let expect = Judged { verdict, outcome: outcome::name(outcome), is_attempt };
        prop_assert_eq!(judged, expect);
        Ok(())
    };
    runner(6000).run(&anything(), property).unwrap();
}

/// With everybody banned, what is dropped is a connection attempt to the listener, or what may be one, and nothing else.
#[test]
fn only_what_may_be_a_connection_attempt_is_ever_dropped() {
    let Some(mut rig) = available("only_what_may_be_a_connection_attempt_is_ever_dropped") else { return };
    ban_everybody(&mut rig);
    let rig = std::cell::RefCell::new(rig);
    let property = |frame: Vec<u8>| {
        prop_assert_eq!(rig.borrow_mut().judge(&frame).verdict, read(&frame).banned());
        Ok(())
    };
    runner(4000).run(&anything(), property).unwrap();
}

fn ban_everybody(rig: &mut Rig) {
    rig.ask_everything();
    for network in ["0.0.0.0/0", "::/0"] {
        rig.deny(network, deny(outcome::DROP_BAN_NETWORK));
    }
}
