use proptest::prelude::*;

use super::*;

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn by_hand(text: &str, now: u64, seconds: u64) -> Ban {
    Ban::new(network(text), Cause::Administrator, "by hand", Millis(now), Duration::from_secs(seconds), true)
}

fn by_offences(text: &str, now: u64, seconds: u64) -> Ban {
    Ban { cause: Cause::Offences(Offence::RelayAttempt), ..by_hand(text, now, seconds) }
}

fn found(book: &BanBook, ip: &str, now: u64) -> Option<String> {
    book.find(ip.parse().unwrap(), Millis(now)).map(|ban| ban.network.to_string())
}

#[test]
fn the_narrowest_ban_is_found() {
    let mut book = BanBook::default();
    for text in ["192.0.2.0/24", "192.0.2.1/32", "2001:db8::/32", "2001:db8:0:1::/64", "2001:db8:0:1::25/128"] {
        book.enter(by_hand(text, 0, 60)).unwrap();
    }
    for (ip, expected) in [
        ("192.0.2.1", Some("192.0.2.1/32")),
        ("::ffff:192.0.2.1", Some("192.0.2.1/32")),
        ("192.0.2.2", Some("192.0.2.0/24")),
        ("192.0.3.1", None),
        ("2001:db8::1", Some("2001:db8::/32")),
        ("2001:db8:0:1:ffff::1", Some("2001:db8:0:1::/64")),
        ("2001:db8:0:1::25", Some("2001:db8:0:1::25/128")),
        ("2001:db9::1", None),
        ("0.0.0.0", None),
        ("::", None),
    ] {
        assert_eq!(found(&book, ip, 0).as_deref(), expected, "{ip}");
    }
}

#[test]
fn a_ban_ends_on_time_whether_swept_or_not() {
    let mut book = BanBook::default();
    book.enter(by_hand("192.0.2.1/32", 1000, 60)).unwrap();
    book.enter(by_hand("192.0.2.0/24", 1000, 30)).unwrap();
    assert!(found(&book, "192.0.2.1", 60_999).is_some());
    assert_eq!(found(&book, "192.0.2.1", 61_000), None);
    assert_eq!(found(&book, "192.0.2.2", 31_000), None);
    assert_eq!((book.len(), book.in_force(Millis(31_000)).count()), (2, 1));
    assert!(!book.needs_sweeping(Millis(30_999)));
    let swept: Vec<_> = book.sweep(Millis(31_000)).iter().map(|ban| ban.network).collect();
    assert_eq!(swept, [network("192.0.2.0/24")]);
    assert_eq!(book.sweep(Millis(61_000)).len(), 1);
    assert!(book.is_empty() && !book.needs_sweeping(Millis(u64::MAX)));
}

/// An old ban, then a new one of the same network at second 10: until which second it lasts, and since when it counts.
#[test]
fn offences_never_shorten_a_ban() {
    for (old, new, until, since) in [
        (by_hand as fn(&str, u64, u64) -> Ban, by_offences as fn(&str, u64, u64) -> Ban, 100, 0),
        (by_offences, by_hand, 30, 0),
        (by_hand, by_hand, 30, 0),
        (by_offences, by_offences, 100, 0),
    ] {
        let mut book = BanBook::default();
        book.enter(old("192.0.2.1/32", 0, 100)).unwrap().count_refused();
        book.enter(new("192.0.2.1/32", 10_000, 20)).unwrap();
        let ban = book.exact(network("192.0.2.1/32"), Millis(10_000)).unwrap();
        assert_eq!((ban.until, ban.since), (Millis(until * 1000), Millis(since)));
        assert_eq!(ban.refused.load(Ordering::Relaxed), 1);
        assert_eq!(book.ends.len(), 1);
    }
}

#[test]
fn a_ban_after_an_unswept_one_begins_anew() {
    let mut book = BanBook::default();
    book.enter(by_hand("192.0.2.1/32", 0, 1)).unwrap();
    let ban = book.enter(by_offences("192.0.2.1/32", 5000, 1)).unwrap();
    assert_eq!((ban.since, ban.until), (Millis(5000), Millis(6000)));
}

#[test]
fn a_full_book_says_so() {
    let mut book = BanBook::default();
    let numbered = |number: u32, length| IpNet::new(IpAddr::from((number << 8).to_be_bytes()), length).unwrap();
    let ban = |network| Ban { network, ..by_hand("192.0.2.0/24", 0, 60) };
    let most = u32::try_from(NETWORKS_MAX).unwrap();
    for number in 0..most {
        book.enter(ban(numbered(number, 24))).unwrap();
    }
    assert_eq!(book.enter(ban(numbered(most, 24))).unwrap_err(), Full);
    // The same again is no more, and sources have a book of their own.
    book.enter(ban(numbered(0, 24))).unwrap();
    book.enter(ban(numbered(most, 32))).unwrap();
    book.remove(numbered(1, 24)).unwrap();
    book.enter(ban(numbered(most, 24))).unwrap();
}

fn any_network() -> impl Strategy<Value = IpNet> {
    let v4 = (0_u32..64, 24_u8..=32).prop_map(|(host, length)| {
        IpNet::new(IpAddr::from((0xC000_0200 | host).to_be_bytes()), length).unwrap().trunc()
    });
    let v6 = (0_u128..8, 0_u128..4, 60_u8..=128).prop_map(|(net, host, length)| {
        let bits = (0x2001_0db8_u128 << 96) | (net << 64) | host;
        IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

proptest! {
    /// Against a list that is searched from end to end.
    #[test]
    fn the_book_is_a_list(steps in prop::collection::vec((any_network(), 0_u8..4, 1_u64..30), 0..120)) {
        let mut book = BanBook::default();
        let mut list: Vec<(IpNet, u64)> = Vec::new();
        for (now, (network, what, seconds)) in (0..).step_by(1000).zip(steps) {
            match what {
                0 => {
                    let removed = book.remove(network).is_some();
                    let before = list.len();
                    list.retain(|(other, _)| *other != network);
                    prop_assert_eq!(removed, list.len() < before);
                }
                1 => {
                    book.sweep(Millis(now));
                    list.retain(|(_, until)| *until > now);
                }
                _ => {
                    let until = now + seconds * 1000;
                    book.enter(Ban { network, ..by_hand("192.0.2.0/24", now, seconds) }).unwrap();
                    list.retain(|(other, _)| *other != network);
                    list.push((network, until));
                }
            }
            prop_assert_eq!(book.len(), list.len());
            let ip = network.addr();
            let holding = list.iter().filter(|(other, until)| *until > now && other.contains(&ip));
            let narrowest = holding.max_by_key(|(other, _)| other.prefix_len()).map(|(other, _)| *other);
            prop_assert_eq!(book.find(ip, Millis(now)).map(|ban| ban.network), narrowest);
        }
    }
}
