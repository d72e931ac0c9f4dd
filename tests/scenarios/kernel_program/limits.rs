//! Accounting, its limits, and floods.

use std::net::Ipv4Addr;

use gateway_common::{Config, Source, SourceKey, maps, outcome, source_row};
use tests::kernel::available;
use tests::kernel::frame::{ACK, FIN, Frame, SYN};
use tests::kernel::rig::{Rig, Verdict, deny, now_ns, unlimited};

use super::{CLIENT, CLIENT_V6, drops, passes};

const SECOND: u64 = 1_000_000_000;
/// A bucket that takes one and is then full for the rest of the test.
const ONCE: (u64, u64) = (3600 * SECOND, 0);

/// No stranger is taken in at once, after the first.
fn gated() -> Config {
    let (new_source_interval_ns, new_source_burst_ns) = ONCE;
    Config { new_source_interval_ns, new_source_burst_ns, ..unlimited() }
}

#[test]
fn counts_are_exact() {
    let Some(mut rig) = available("counts_are_exact") else { return };
    let mut expect = Source::default();
    let frames = [(SYN, 0), (ACK, 100), (ACK, 1400), (FIN | ACK, 0), (SYN, 0), (ACK, 9)];
    for (flags, payload) in frames {
        let frame = Frame { payload, ..Frame::of(CLIENT.parse().unwrap(), flags) }.bytes();
        let times = 1000;
        rig.repeat(&frame, times);
        let times = u64::from(times);
        expect.packets += times;
        expect.bytes += times * u64::try_from(frame.len()).unwrap();
        expect.syn += if flags == SYN { times } else { 0 };
        expect.fin_rst += if flags & FIN != 0 { times } else { 0 };
    }
    let known = rig.source(CLIENT).unwrap();
    let Source { first_seen_ns, last_seen_ns, syn_bucket_ns, .. } = known;
    assert_eq!(known, Source { first_seen_ns, last_seen_ns, syn_bucket_ns, ..expect });
    assert!(first_seen_ns > 0 && first_seen_ns <= last_seen_ns && last_seen_ns <= now_ns());
    let tracked = rig.counter(outcome::PASS_TRACKED);
    assert_eq!((tracked.count, tracked.bytes, tracked.syn), (expect.packets, expect.bytes, expect.syn));
    assert_eq!(rig.count(outcome::SOURCES_ADDED), 1);
}

/// A row has places for two, and a third is counted in the table.
#[test]
fn sources_of_one_row_are_counted_each_for_itself() {
    let Some(mut rig) = available("sources_of_one_row_are_counted_each_for_itself") else { return };
    let all = (0..=u32::MAX >> 8).map(|number| Ipv4Addr::from(0x0a00_0000 | number));
    let row = |address: &Ipv4Addr| source_row(SourceKey::v4(address.octets()));
    let sources: Vec<_> = all.filter(|address| row(address) == 7).take(3).collect();
    let frames: Vec<_> = sources.iter().map(|source| Frame::of((*source).into(), ACK).bytes()).collect();
    for source in &sources {
        passes(&mut rig, &Frame::syn(&source.to_string()), outcome::PASS_TRACKED);
    }
    for times in 1..=9 {
        for (frame, factor) in frames.iter().zip([1, 2, 3]) {
            rig.repeat(frame, times * factor);
        }
    }
    for (source, factor) in sources.iter().zip([1, 2, 3]) {
        let Source { packets, bytes, syn, .. } = rig.source(&source.to_string()).unwrap();
        let octets = u64::try_from(frames[0].len()).unwrap();
        assert_eq!((packets, bytes, syn), (1 + 45 * factor, (1 + 45 * factor) * octets, 1), "{source}");
    }
    let octets: Vec<_> = sources.iter().map(Ipv4Addr::octets).collect();
    assert_eq!(rig.source_row(7).address[..], octets[..2]);
    assert_eq!(rig.count(outcome::PASS_TRACKED), 3 + 45 * 6);
}

#[test]
fn a_64_is_one_source() {
    let Some(mut rig) = available("a_64_is_one_source") else { return };
    for host in 0..200 {
        passes(&mut rig, &Frame::syn(&format!("2001:db8:1:2::{host:x}")), outcome::PASS_TRACKED);
    }
    passes(&mut rig, &Frame::syn("2001:db8:1:3::1"), outcome::PASS_TRACKED);
    assert_eq!(rig.sources(), 2);
    assert_eq!(rig.source("2001:db8:1:2::").unwrap().syn, 200);
}

#[test]
fn attempts_of_one_source_are_limited() {
    let Some(mut rig) = available("attempts_of_one_source_are_limited") else { return };
    let interval = 3600 * SECOND;
    rig.configure(Config { syn_interval_ns: interval, syn_burst_ns: 9 * interval, ..unlimited() });
    for source in [CLIENT, CLIENT_V6] {
        for _ in 0..10 {
            passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
        }
        for _ in 0..7 {
            drops(&mut rig, &Frame::syn(source), outcome::DROP_SYN_RATE);
        }
        passes(&mut rig, &Frame::ack(source), outcome::PASS_TRACKED);
        let known = rig.source(source).unwrap();
        assert_eq!((known.packets, known.syn, known.dropped), (18, 17, 7));
    }
    assert_eq!(rig.counter(outcome::DROP_SYN_RATE).syn, 14);
    let dropped: Vec<u64> = rig.events().iter().map(|event| event.dropped).collect();
    assert_eq!(dropped, [1, 2, 4, 1, 2, 4]);
}

#[test]
fn a_limited_source_may_go_on_after_a_while() {
    let Some(mut rig) = available("a_limited_source_may_go_on_after_a_while") else { return };
    rig.configure(Config { syn_interval_ns: SECOND / 5, syn_burst_ns: 0, ..unlimited() });
    passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_TRACKED);
    drops(&mut rig, &Frame::syn(CLIENT), outcome::DROP_SYN_RATE);
    let end = now_ns() + 10 * SECOND;
    while rig.send(&Frame::syn(CLIENT).bytes()) == Verdict::Drop {
        assert!(now_ns() < end, "still limited");
    }
    let rate = rig.source(CLIENT).unwrap();
    assert_eq!(rate.dropped, rate.syn - 2);
}

#[test]
fn a_stranger_in_a_crowd_is_tracked_when_it_comes_again() {
    let Some(mut rig) = available("a_stranger_in_a_crowd_is_tracked_when_it_comes_again") else { return };
    rig.configure(gated());
    passes(&mut rig, &Frame::syn("192.0.2.1"), outcome::PASS_TRACKED);
    for source in [CLIENT, CLIENT_V6] {
        for _ in 0..2 {
            passes(&mut rig, &Frame::ack(source), outcome::PASS_UNTRACKED);
        }
        assert_eq!(rig.source(source), None);
        passes(&mut rig, &Frame::ack(source), outcome::PASS_TRACKED);
        assert_eq!(rig.source(source).unwrap().packets, 1);
    }
    passes(&mut rig, &Frame::ack("192.0.2.1"), outcome::PASS_TRACKED);
}

#[test]
fn those_who_come_again_are_limited_too() {
    let Some(mut rig) = available("those_who_come_again_are_limited_too") else { return };
    let (returning_interval_ns, returning_burst_ns) = ONCE;
    rig.configure(Config { returning_interval_ns, returning_burst_ns, ..gated() });
    passes(&mut rig, &Frame::syn("192.0.2.1"), outcome::PASS_TRACKED);
    for _ in 0..2 {
        passes(&mut rig, &Frame::ack(CLIENT), outcome::PASS_UNTRACKED);
    }
    passes(&mut rig, &Frame::ack(CLIENT), outcome::PASS_TRACKED);
    // More often than a cell can count.
    for _ in 0..600 {
        passes(&mut rig, &Frame::ack(CLIENT_V6), outcome::PASS_UNTRACKED);
    }
    assert_eq!(rig.sources(), 2);
}

#[test]
fn strangers_attempts_are_limited_together_and_a_retry_is_let_in() {
    let Some(mut rig) = available("strangers_attempts_are_limited_together_and_a_retry_is_let_in") else { return };
    let interval = 3600 * SECOND;
    rig.configure(Config { unknown_syn_interval_ns: interval, unknown_syn_burst_ns: 2 * interval, ..gated() });
    passes(&mut rig, &Frame::syn("192.0.2.1"), outcome::PASS_TRACKED);
    for last in 1..=3 {
        passes(&mut rig, &Frame::syn(&format!("203.0.113.{last}")), outcome::PASS_UNTRACKED);
    }
    drops(&mut rig, &Frame::syn(CLIENT), outcome::DROP_UNKNOWN_RATE);
    drops(&mut rig, &Frame::syn(CLIENT_V6), outcome::DROP_UNKNOWN_RATE);
    passes(&mut rig, &Frame::ack("203.0.113.9"), outcome::PASS_UNTRACKED);
    passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_UNTRACKED);
    passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_TRACKED);
    passes(&mut rig, &Frame::syn("192.0.2.1"), outcome::PASS_TRACKED);
    rig.allow("203.0.113.0/24");
    passes(&mut rig, &Frame::syn("203.0.113.77"), outcome::PASS_ALLOWED);
}

/// A quarter of a million addresses that come once, and a thousand true sources that were there before.
#[test]
fn a_flood_of_forged_sources_takes_no_room_and_displaces_nobody() {
    let Some(mut rig) = available("a_flood_of_forged_sources") else { return };
    let true_source = |number: u32| format!("10.0.{}.{}", number / 250, 1 + number % 250);
    for number in 0..1000 {
        rig.send(&Frame::syn(&true_source(number)).bytes());
    }
    assert_eq!(rig.sources(), 1000);
    rig.configure(gated());
    let mut frame = Frame::syn("11.0.0.1").bytes();
    for number in 0..250_000_u32 {
        frame[26..30].copy_from_slice(&(0x0b00_0000 | number.wrapping_mul(2_654_435_761) >> 8).to_be_bytes());
        rig.send(&frame);
    }
    // One by the bucket; and a cell's 24 bits may mistake one forged source for another, three times in a row.
    assert!((1000..=1003).contains(&rig.sources()), "{} sources", rig.sources());
    for number in 0..1000 {
        assert!(rig.source(&true_source(number)).is_some(), "source {number} was displaced");
    }
    assert_eq!(rig.count(outcome::SOURCES_FULL), 0);
}

#[test]
fn a_full_table_is_counted_and_the_known_go_on_being_counted() {
    let Some(mut rig) = Rig::load_with(&[(maps::SOURCES, 4)]).ok().or_else(|| available("a_full_table")) else {
        return;
    };
    for last in 1..=4 {
        passes(&mut rig, &Frame::syn(&format!("203.0.113.{last}")), outcome::PASS_TRACKED);
    }
    for _ in 0..2 {
        passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_TABLE_FULL);
    }
    passes(&mut rig, &Frame::syn("203.0.113.2"), outcome::PASS_TRACKED);
    assert_eq!(rig.source("203.0.113.2").unwrap().syn, 2);
    assert_eq!((rig.count(outcome::SOURCES_ADDED), rig.count(outcome::SOURCES_FULL)), (4, 2));
    rig.ban(CLIENT, deny(outcome::DROP_BAN));
    drops(&mut rig, &Frame::syn(CLIENT), outcome::DROP_BAN);
}

#[test]
fn a_source_whose_bit_was_cleared_is_found_again() {
    let Some(mut rig) = available("a_source_whose_bit_was_cleared_is_found_again") else { return };
    passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_TRACKED);
    rig.clear_source_bit(CLIENT);
    passes(&mut rig, &Frame::ack(CLIENT), outcome::PASS_TRACKED);
    passes(&mut rig, &Frame::ack(CLIENT), outcome::PASS_TRACKED);
    assert_eq!(rig.source(CLIENT).unwrap().packets, 3);
    assert_eq!((rig.count(outcome::SOURCES_ADDED), rig.count(outcome::SOURCES_FULL)), (1, 0));
}

#[test]
fn events_that_nobody_reads_are_counted_and_rare_ones_are_enough() {
    let Some(mut rig) = Rig::load_with(&[(maps::EVENTS, 4096)]).ok().or_else(|| available("events_lost")) else {
        return;
    };
    let ban_many = |rig: &mut Rig, from: u32| {
        for number in from..from + 100 {
            let key = SourceKey::v4((0x0b00_0000 + number).to_be_bytes());
            rig.ban_key(key, deny(outcome::DROP_BAN));
            drops(rig, &Frame::syn(&key.address().to_string()), outcome::DROP_BAN);
        }
    };
    ban_many(&mut rig, 0);
    let lost = rig.count(outcome::EVENTS_LOST);
    assert_eq!(rig.events().len(), 100 - usize::try_from(lost).unwrap());
    assert!(lost > 0);
    let interval = 3600 * SECOND;
    rig.configure(Config { event_interval_ns: interval, event_burst_ns: 4 * interval, ..unlimited() });
    ban_many(&mut rig, 1000);
    assert_eq!(rig.events().len(), 5);
    assert_eq!(rig.count(outcome::EVENTS_LOST), lost);
}
