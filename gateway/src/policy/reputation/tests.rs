use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;

fn source(text: &str) -> Source {
    Source::of(text.parse().unwrap())
}

fn numbered(number: u32) -> Source {
    Source::of(IpAddr::from(number.to_be_bytes()))
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// The shortest way to a ban.
fn offend(reputation: &mut Reputation, source: Source, now: u64) -> Sentence {
    assert_eq!(reputation.file(source, Finding::Flood, Millis(now)), None);
    reputation.file(source, Finding::Flood, Millis(now)).unwrap()
}

/// How many findings of one kind, this far apart, it takes; `None`: a hundred do not.
#[test]
fn so_many_findings_are_a_ban() {
    use Finding::*;
    for (finding, minutes_apart, expected) in [
        (RelayAttempt, 0, Some(10)),
        (BareNewline, 0, Some(10)),
        (AuthFailure, 0, Some(10)),
        (TooManyCommands, 0, Some(5)),
        (EarlyTalk, 0, Some(4)),
        (IdentityClaim, 0, Some(4)),
        (TooManyErrors, 0, Some(3)),
        (Flood, 0, Some(2)),
        // 100 points are forgotten in an hour: ten every six minutes can go on for ever, ten every five cannot.
        (RelayAttempt, 6, None),
        (RelayAttempt, 5, Some(55)),
        (RelayAttempt, 1, Some(12)),
        (Flood, 30, None),
        (Flood, 29, Some(31)),
        (Flood, 600, None),
    ] {
        let mut reputation = Reputation::new(&Bans::default());
        let client = source("192.0.2.1");
        let banned = (0..100).find(|count| {
            let now = Millis(count * minutes_apart * MINUTE);
            reputation.file(client, finding, now).is_some()
        });
        assert_eq!(banned.map(|count| count + 1), expected, "{finding} every {minutes_apart} minutes");
    }
}

#[test]
fn the_reason_says_what_was_done() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("2001:db8::1");
    assert_eq!(reputation.file(client, Finding::Flood, Millis(0)), None);
    // By now the flood is forgotten.
    let now = Millis(30 * MINUTE);
    for _ in 0..7 {
        assert_eq!(reputation.file(client, Finding::RelayAttempt, now), None);
    }
    assert_eq!(reputation.file(client, Finding::EarlyTalk, now), None);
    let sentence = reputation.file(source("2001:db8::2"), Finding::RelayAttempt, now).unwrap();
    let expected = Sentence {
        length: minutes(10),
        cause: Finding::RelayAttempt,
        reason: "8 × relay attempt, 1 × talk before its turn".to_owned(),
        offence: 1,
    };
    assert_eq!(sentence, expected);
}

#[test]
fn each_ban_is_longer_up_to_the_longest() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    let mut now = 0;
    for (offence, expected) in (1..).zip([10, 40, 160, 640, 24 * 60, 24 * 60]) {
        let Sentence { length, offence: counted, .. } = offend(&mut reputation, client, now);
        assert_eq!((length, counted), (minutes(expected), offence));
        now += expected * MINUTE;
    }
    // One millisecond short of a day without offence, and then a day.
    let day = 24 * 60 * MINUTE;
    assert_eq!(offend(&mut reputation, client, now + day - 1).offence, 7);
    assert_eq!(offend(&mut reputation, client, now + day - 1 + day + day).length, minutes(10));
}

#[test]
fn what_is_done_during_a_ban_makes_it_no_longer() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    offend(&mut reputation, client, 0);
    for now in 0..1000 {
        assert_eq!(reputation.file(client, Finding::Flood, Millis(now)), None);
    }
    let end = 10 * MINUTE;
    assert_eq!(reputation.file(client, Finding::Flood, Millis(end - 1)), None);
    assert_eq!(offend(&mut reputation, client, end).offence, 2);
}

#[test]
fn a_pardon_forgets_all() {
    let mut reputation = Reputation::new(&Bans::default());
    let (client, other) = (source("192.0.2.1"), source("192.0.2.2"));
    offend(&mut reputation, client, 0);
    offend(&mut reputation, other, 0);
    reputation.pardon(client);
    reputation.pardon(source("192.0.2.3"));
    assert_eq!(reputation.sources(), 1);
    assert_eq!(offend(&mut reputation, client, 1).offence, 1);
    assert_eq!(offend(&mut reputation, other, 10 * MINUTE).offence, 2);
}

#[test]
fn the_table_is_bounded_and_the_worst_stay() {
    let rules = Bans { sources: 100, ..Bans::default() };
    let mut reputation = Reputation::new(&rules);
    let worst = numbered(0);
    offend(&mut reputation, worst, 0);
    for number in 1..10_000 {
        reputation.file(numbered(number), Finding::RelayAttempt, Millis(u64::from(number)));
        assert!(reputation.sources() <= 100);
    }
    assert_eq!(offend(&mut reputation, worst, 10 * MINUTE).offence, 2);
}

#[test]
fn who_has_nothing_left_on_it_makes_room() {
    let mut reputation = Reputation::new(&Bans { sources: 1000, ..Bans::default() });
    for number in 0..1000 {
        reputation.file(numbered(number), Finding::RelayAttempt, Millis(0));
    }
    assert_eq!(reputation.sources(), 1000);
    // Each newcomer finds two whose findings are forgotten.
    for number in 1000..1400 {
        reputation.file(numbered(number), Finding::RelayAttempt, Millis(60 * MINUTE));
    }
    assert!(reputation.sources() < 700, "{}", reputation.sources());
}

#[test]
fn time_that_goes_back_forgives_nothing() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    assert_eq!(reputation.file(client, Finding::Flood, Millis(1000)), None);
    assert!(reputation.file(client, Finding::Flood, Millis(500)).is_some());
    assert_eq!(reputation.file(client, Finding::Flood, Millis(u64::MAX)), None);
}

fn finding() -> impl Strategy<Value = Finding> {
    proptest::sample::select(Finding::ALL.to_vec())
}

proptest! {
    /// One source against points added up in numbers that cannot overflow.
    #[test]
    fn the_score_is_exact(
        steps in prop::collection::vec((finding(), 0..20 * MINUTE), 1..60),
        threshold in 10_u32..1000,
        memory in 1_u64..300,
    ) {
        let rules = Bans { threshold, memory: minutes(memory), ..Bans::default() };
        let mut reputation = Reputation::new(&rules);
        let client = source("192.0.2.1");
        let (mut now, mut points) = (0_u64, 0_u128);
        let scale = u128::from(memory * MINUTE);
        for (finding, pause) in steps {
            now += pause;
            points = points.saturating_sub(u128::from(pause) * u128::from(threshold));
            points += u128::from(finding.points()) * scale;
            let sentence = reputation.file(client, finding, Millis(now));
            prop_assert_eq!(sentence.is_some(), points.div_ceil(scale) >= u128::from(threshold));
            if sentence.is_some() {
                return Ok(());
            }
        }
    }

    /// Whatever comes, from whomever, whenever: bounded, consistent, and never banned below the threshold.
    #[test]
    fn nothing_is_too_much(
        steps in prop::collection::vec((0_u32..40, finding(), 0..u64::MAX / 64), 0..300),
        sources in 1_usize..20,
    ) {
        let rules = Bans { sources, ..Bans::default() };
        let mut reputation = Reputation::new(&rules);
        let mut now = 0_u64;
        for (number, finding, pause) in steps {
            now = now.saturating_add(pause >> (pause % 64));
            if let Some(sentence) = reputation.file(numbered(number), finding, Millis(now)) {
                prop_assert!(sentence.length >= rules.first && sentence.length <= rules.maximum);
                prop_assert!(!sentence.reason.is_empty());
            }
            prop_assert!(reputation.sources() <= sources);
            prop_assert_eq!(reputation.index.len(), reputation.accounts.len());
            for (place, account) in reputation.accounts.iter().enumerate() {
                prop_assert_eq!(reputation.index[&account.source], place);
            }
        }
    }
}
