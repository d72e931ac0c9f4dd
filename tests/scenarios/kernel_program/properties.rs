//! Whatever arrives: the program agrees with a plain reading of the headers, and drops nothing that is on no list.

use gateway_common::outcome;
use proptest::prelude::*;
use tests::kernel::available;
use tests::kernel::frame::{Extension, Frame};
use tests::kernel::rig::{Rig, SHORTEST, Verdict, deny};

/// A segment to the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    is_attempt: bool,
    /// Whether a source can have this address.
    is_possible: bool,
}

/// What a frame is, read without hurry: a segment to the listener, or the outcome under which it passes.
fn read(frame: &[u8]) -> Result<Segment, u32> {
    let mut rest = frame.get(12..).ok_or(outcome::PASS_TRUNCATED)?;
    for _ in 0..3 {
        let kind = word(rest, 0)?;
        match kind {
            0x0800 => return ipv4(&rest[2..]),
            0x86dd => return ipv6(&rest[2..]),
            0x8100 | 0x88a8 => {
                // A third tag's type is read, what follows it is not.
                rest = rest.get(4..).unwrap_or_default();
            }
            _ => return Err(outcome::PASS_NOT_IP),
        }
    }
    Err(outcome::PASS_VLAN_DEPTH)
}

fn word(bytes: &[u8], at: usize) -> Result<u16, u32> {
    bytes.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]])).ok_or(outcome::PASS_TRUNCATED)
}

fn ipv4(packet: &[u8]) -> Result<Segment, u32> {
    let header = packet.get(..20).ok_or(outcome::PASS_TRUNCATED)?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(outcome::PASS_MALFORMED);
    }
    if header[9] != 6 {
        return Err(outcome::PASS_NOT_TCP);
    }
    let (total, fragment) = (usize::from(word(header, 2)?), word(header, 6)?);
    let is_whole = total >= length + 20;
    match (fragment & 0x1fff, fragment & 0x2000 != 0) {
        (0, true) if !is_whole => Err(outcome::PASS_FRAGMENT),
        (0, _) if !is_whole => Err(outcome::PASS_MALFORMED),
        (0, _) => Ok(Segment { is_attempt: tcp(packet.get(length..).unwrap_or_default())?, is_possible: true }),
        _ => Err(outcome::PASS_FRAGMENT),
    }
}

fn ipv6(packet: &[u8]) -> Result<Segment, u32> {
    let header = packet.get(..40).ok_or(outcome::PASS_TRUNCATED)?;
    if header[0] >> 4 != 6 {
        return Err(outcome::PASS_MALFORMED);
    }
    let (mut next, mut at, mut is_fragment) = (header[6], 40, false);
    for _ in 0..4 {
        match next {
            6 => break,
            0 | 43 | 44 | 51 | 60 => {}
            50 => return Err(outcome::PASS_EXTENSIONS),
            _ => return Err(outcome::PASS_NOT_TCP),
        }
        let extension = packet.get(at..at + 8).ok_or(outcome::PASS_TRUNCATED)?;
        let length = usize::from(extension[1]);
        at += match next {
            44 if word(extension, 2)? & 0xfff8 != 0 => return Err(outcome::PASS_FRAGMENT),
            44 => 8,
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        is_fragment |= next == 44;
        next = extension[0];
    }
    if next != 6 {
        return Err(outcome::PASS_EXTENSIONS);
    }
    if usize::from(word(header, 4)?) < at - 40 + 20 {
        return Err(if is_fragment { outcome::PASS_FRAGMENT } else { outcome::PASS_MALFORMED });
    }
    let is_attempt = tcp(packet.get(at..).unwrap_or_default())?;
    Ok(Segment { is_attempt, is_possible: header[8..10] != [0, 0] })
}

fn tcp(segment: &[u8]) -> Result<bool, u32> {
    let header = segment.get(..20).ok_or(outcome::PASS_TRUNCATED)?;
    match (word(header, 2)?, header[12] >> 4) {
        (25, 5..) => Ok(header[13] & 0x12 == 2),
        (25, _) => Err(outcome::PASS_MALFORMED),
        _ => Err(outcome::PASS_OTHER_PORT),
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
        prop::collection::vec(prop::sample::select(vec![0x8100_u16, 0x88a8]), 0..4),
        0_usize..=10,
        prop::collection::vec(extension, 0..6),
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

#[test]
fn no_byte_string_does_anything_but_pass_with_a_counted_reason() {
    let Some(rig) = available("no_byte_string_does_anything_but_pass") else { return };
    let rig = std::cell::RefCell::new(rig);
    let property = |frame: Vec<u8>| {
        let judged = rig.borrow_mut().judge(&frame);
        let expect = match read(&frame) {
            Ok(Segment { is_attempt, is_possible: true }) => (outcome::PASS_TRACKED, is_attempt),
            Ok(Segment { is_attempt, is_possible: false }) => (outcome::PASS_IMPOSSIBLE_SOURCE, is_attempt),
            Err(outcome) => (outcome, false),
        };
        prop_assert_eq!(judged.verdict, Verdict::Pass);
        prop_assert_eq!((judged.outcome, judged.is_attempt), (outcome::name(expect.0), expect.1));
        Ok(())
    };
    runner(6000).run(&anything(), property).unwrap();
}

/// With everybody banned, what is dropped is a readable connection attempt to the listener, and nothing else.
#[test]
fn only_connection_attempts_to_the_listener_are_ever_dropped() {
    let Some(mut rig) = available("only_connection_attempts_to_the_listener_are_ever_dropped") else { return };
    ban_everybody(&mut rig);
    let rig = std::cell::RefCell::new(rig);
    let property = |frame: Vec<u8>| {
        let expect = if read(&frame).is_ok_and(|segment| segment.is_attempt) { Verdict::Drop } else { Verdict::Pass };
        prop_assert_eq!(rig.borrow_mut().judge(&frame).verdict, expect);
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
