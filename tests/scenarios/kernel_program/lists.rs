//! Bans, networks, the allow list, addresses that cannot come from outside.

use std::net::Ipv4Addr;

use gateway_common::{
    CONFIG_MONITOR_ONLY, Config, DENY_ALL_PACKETS, Deny, INTERFACE_OUTSIDE, ban_row, outcome, reason,
};
use tests::kernel::available;
use tests::kernel::frame::{ACK, FIN, Frame, RST, SYN};
use tests::kernel::rig::{deny, key, now_ns, unlimited};

use super::{CLIENT, CLIENT_V6, drops, passes};

/// The interface that test runs come by: the loopback's.
const INTERFACE: u32 = 1;
const SECOND: u64 = 1_000_000_000;

#[test]
fn a_ban_drops_attempts_and_leaves_mail_in_transfer_alone() {
    let Some(mut rig) = available("a_ban_drops_attempts_and_leaves_mail_in_transfer_alone") else { return };
    for source in [CLIENT, CLIENT_V6] {
        passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
        rig.ban(source, deny(outcome::DROP_BAN));
        drops(&mut rig, &Frame::syn(source), outcome::DROP_BAN);
        for flags in [ACK, SYN | ACK, FIN | ACK, RST, 0] {
            passes(&mut rig, &Frame { flags, ..Frame::syn(source) }, outcome::PASS_BANNED_ESTABLISHED);
        }
        let known = rig.source(source).unwrap();
        assert_eq!((known.packets, known.syn, known.fin_rst, known.dropped), (6, 1, 2, 0), "what passed is accounted");
        assert_eq!(rig.banned(source).dropped, 1, "what was dropped stands in the ban");
        rig.unban(source);
        passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
    }
}

/// Of the addresses that share a row of two places, every one is banned, counted and let go by itself.
#[test]
fn bans_that_find_their_row_full_hold_too() {
    let Some(mut rig) = available("bans_that_find_their_row_full_hold_too") else { return };
    let addresses: Vec<_> = (0..u32::MAX)
        .map(|number| Ipv4Addr::from(number).to_string())
        .filter(|address| ban_row(key(address)) == 7)
        .skip(1)
        .take(5)
        .collect();
    let [stranger, banned @ ..] = addresses.as_slice() else { panic!("five addresses of one row") };
    for (count, address) in banned.iter().enumerate() {
        rig.ban(address, deny(outcome::DROP_BAN));
        assert_eq!(rig.ban_row(key(address)).elsewhere, u32::try_from(count.saturating_sub(1)).unwrap());
    }
    for (drops_due, address) in (1..).zip(banned) {
        for _ in 0..drops_due {
            drops(&mut rig, &Frame::syn(address), outcome::DROP_BAN);
        }
        assert_eq!(rig.banned(address).dropped, drops_due, "{address}");
        passes(&mut rig, &Frame::ack(address), outcome::PASS_BANNED_ESTABLISHED);
    }
    passes(&mut rig, &Frame::syn(stranger), outcome::PASS_TRACKED);
    for address in banned {
        rig.unban(address);
        passes(&mut rig, &Frame::syn(address), outcome::PASS_TRACKED);
    }
}

#[test]
fn a_ban_may_cut_everything() {
    let Some(mut rig) = available("a_ban_may_cut_everything") else { return };
    rig.ban(CLIENT, Deny { flags: DENY_ALL_PACKETS, ..deny(outcome::DROP_BAN) });
    for flags in [SYN, ACK, FIN, 0] {
        drops(&mut rig, &Frame { flags, ..Frame::syn(CLIENT) }, outcome::DROP_BAN);
    }
    assert_eq!(rig.counter(outcome::DROP_BAN).count, 4);
    assert_eq!(rig.counter(outcome::DROP_BAN).syn, 1);
}

#[test]
fn a_ban_ends_by_itself() {
    let Some(mut rig) = available("a_ban_ends_by_itself") else { return };
    rig.ban(CLIENT, Deny { until_ns: now_ns() + 3600 * SECOND, ..deny(outcome::DROP_BAN) });
    drops(&mut rig, &Frame::syn(CLIENT), outcome::DROP_BAN);
    rig.ban(CLIENT, Deny { until_ns: now_ns() - SECOND, ..deny(outcome::DROP_BAN) });
    passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_TRACKED);
    assert_eq!(rig.count(outcome::BANS_EXPIRED), 1);
    rig.ban(CLIENT, Deny { until_ns: now_ns() + SECOND / 5, ..deny(outcome::DROP_BAN) });
    drops(&mut rig, &Frame::syn(CLIENT), outcome::DROP_BAN);
    let end = now_ns() + 10 * SECOND;
    while rig.judge(&Frame::syn(CLIENT).bytes()).outcome == "ban" {
        assert!(now_ns() < end, "a ban of 200 ms still holds");
    }
}

#[test]
fn a_ban_is_for_an_address_or_a_64() {
    let Some(mut rig) = available("a_ban_is_for_an_address_or_a_64") else { return };
    rig.ban("2001:db8:7::1", deny(outcome::DROP_BAN));
    rig.ban("198.51.100.7", deny(outcome::DROP_BAN));
    for source in ["2001:db8:7::", "2001:db8:7:0:ffff:ffff:ffff:ffff", "198.51.100.7"] {
        drops(&mut rig, &Frame::syn(source), outcome::DROP_BAN);
    }
    for source in ["2001:db8:7:1::1", "2001:db8:6:ffff::1", "198.51.100.6", "198.51.100.8", "7.100.51.198"] {
        passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
    }
}

#[test]
fn networks_are_denied_by_their_longest_prefix() {
    let Some(mut rig) = available("networks_are_denied_by_their_longest_prefix") else { return };
    rig.deny("203.0.0.0/16", deny(outcome::DROP_BAN_NETWORK));
    rig.deny("203.0.113.128/25", Deny { until_ns: now_ns() - SECOND, ..deny(outcome::DROP_BAN_NETWORK) });
    rig.deny("2001:db8::/32", deny(outcome::DROP_BAN_NETWORK));
    rig.deny("2001:db8:5::77/128", Deny { flags: DENY_ALL_PACKETS, ..deny(outcome::DROP_BAN_NETWORK) });
    for source in ["203.0.0.0", "203.0.113.127", "203.0.255.255", "2001:db8::1", "2001:db8:ffff::1", "2001:db8:5::77"] {
        drops(&mut rig, &Frame::syn(source), outcome::DROP_BAN_NETWORK);
    }
    for source in ["203.1.0.0", "202.255.255.255", "2001:db9::1", "203.0.113.128", "203.0.113.255"] {
        passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
    }
    assert_eq!(rig.count(outcome::BANS_EXPIRED), 2);
    passes(&mut rig, &Frame::ack("203.0.113.1"), outcome::PASS_BANNED_ESTABLISHED);
    passes(&mut rig, &Frame::ack("2001:db8:5::76"), outcome::PASS_BANNED_ESTABLISHED);
    drops(&mut rig, &Frame::ack("2001:db8:5::77"), outcome::DROP_BAN_NETWORK);
    assert_eq!(rig.denied("203.0.9.9").dropped, 3);
}

#[test]
fn nothing_touches_the_allow_list() {
    let Some(mut rig) = available("nothing_touches_the_allow_list") else { return };
    rig.configure(Config { syn_interval_ns: 3600 * SECOND, ..unlimited() });
    rig.set_interface(INTERFACE, INTERFACE_OUTSIDE);
    rig.allow("198.51.100.0/24");
    rig.allow("2001:db8:7::25/128");
    rig.deny("198.51.100.7/32", deny(outcome::DROP_SPOOFED));
    rig.deny("198.51.100.0/28", Deny { flags: DENY_ALL_PACKETS, ..deny(outcome::DROP_BAN_NETWORK) });
    for source in [CLIENT, CLIENT_V6] {
        rig.ban(source, Deny { flags: DENY_ALL_PACKETS, ..deny(outcome::DROP_BAN) });
        for _ in 0..5 {
            passes(&mut rig, &Frame::syn(source), outcome::PASS_ALLOWED);
        }
        passes(&mut rig, &Frame::ack(source), outcome::PASS_ALLOWED);
        let known = rig.source(source).unwrap();
        assert_eq!((known.packets, known.syn, known.dropped), (6, 5, 0));
    }
    // The next address of the /64 is banned with it, and not allowed.
    drops(&mut rig, &Frame::syn("2001:db8:7::26"), outcome::DROP_BAN);
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn addresses_that_cannot_come_from_outside_are_dropped_there_and_only_there() {
    let Some(mut rig) = available("addresses_that_cannot_come_from_outside") else { return };
    for (cause, network, source) in [
        (outcome::DROP_BOGON, "240.0.0.0/16", "240.0.1.2"),
        (outcome::DROP_SPOOFED, "10.0.0.0/24", "10.0.0.25"),
        (outcome::DROP_BOGON, "fec0::/32", "fec0::1"),
        (outcome::DROP_SPOOFED, "fd00:1::/64", "fd00:1::25"),
    ] {
        rig.deny(network, Deny { reason: reason::NONE, ..deny(cause) });
        rig.set_interface(INTERFACE, 0);
        passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
        rig.set_interface(INTERFACE + 1, INTERFACE_OUTSIDE);
        passes(&mut rig, &Frame::syn(source), outcome::PASS_TRACKED);
        rig.set_interface(INTERFACE, INTERFACE_OUTSIDE);
        drops(&mut rig, &Frame::syn(source), cause);
        passes(&mut rig, &Frame::ack(source), outcome::PASS_BANNED_ESTABLISHED);
        assert_eq!(rig.denied(source).dropped, 1);
    }
}

#[test]
fn monitor_only_counts_what_it_would_have_dropped() {
    let Some(mut rig) = available("monitor_only_counts_what_it_would_have_dropped") else { return };
    let limited = Config { syn_interval_ns: 3600 * SECOND, ..unlimited() };
    rig.configure(Config { flags: CONFIG_MONITOR_ONLY, ..limited });
    rig.set_interface(INTERFACE, INTERFACE_OUTSIDE);
    rig.deny("203.0.113.0/24", deny(outcome::DROP_BAN_NETWORK));
    rig.deny("240.0.0.0/16", deny(outcome::DROP_BOGON));
    rig.deny("10.0.0.0/24", deny(outcome::DROP_SPOOFED));
    rig.ban(CLIENT, deny(outcome::DROP_BAN));
    for (source, would) in [
        (CLIENT, outcome::WOULD_DROP_BAN),
        ("203.0.113.5", outcome::WOULD_DROP_BAN_NETWORK),
        ("240.0.0.9", outcome::WOULD_DROP_BOGON),
        ("10.0.0.9", outcome::WOULD_DROP_SPOOFED),
    ] {
        passes(&mut rig, &Frame::syn(source), would);
        assert_eq!(rig.source(source).unwrap().syn, 1, "spared packets are accounted");
    }
    passes(&mut rig, &Frame::syn(CLIENT_V6), outcome::PASS_TRACKED);
    passes(&mut rig, &Frame::syn(CLIENT_V6), outcome::WOULD_DROP_SYN_RATE);
    assert_eq!(rig.banned(CLIENT).dropped, 1);
    let events = rig.events();
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event.outcome >= outcome::WOULD_DROP), "{events:?}");
}

#[test]
fn an_entry_that_is_none_passes() {
    let Some(mut rig) = available("an_entry_that_is_none_passes") else { return };
    for cause in [0, outcome::PASS_TRACKED, outcome::DROP_SYN_RATE, outcome::WOULD_DROP_BAN, u32::MAX] {
        rig.ban(CLIENT, deny(cause));
        passes(&mut rig, &Frame::syn(CLIENT), outcome::PASS_FAULT);
    }
}

#[test]
fn events_tell_of_the_first_drop_and_of_every_doubling() {
    let Some(mut rig) = available("events_tell_of_the_first_drop_and_of_every_doubling") else { return };
    rig.ban(CLIENT_V6, deny(outcome::DROP_BAN));
    rig.ban(CLIENT, deny(outcome::DROP_BAN));
    let before = now_ns();
    drops(&mut rig, &Frame::syn(CLIENT_V6), outcome::DROP_BAN);
    for _ in 0..100 {
        drops(&mut rig, &Frame::syn(CLIENT), outcome::DROP_BAN);
    }
    let events = rig.events();
    let [first, others @ ..] = events.as_slice() else { panic!("no event") };
    assert_eq!(first.source, [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x25]);
    assert_eq!((first.outcome, first.reason, first.dropped), (outcome::DROP_BAN, reason::RELAY_ATTEMPTS, 1));
    assert_eq!((first.interface, u16::from_be_bytes(first.port)), (INTERFACE, 25));
    // The program's clock goes by the tick.
    assert!((before - SECOND / 10..=now_ns()).contains(&first.time_ns), "{} is not after {before}", first.time_ns);
    let dropped: Vec<u64> = others.iter().map(|event| event.dropped).collect();
    assert_eq!(dropped, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(others[0].source, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7]);
}
