use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

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
fn offend(reputation: &mut Reputation, source: Source, now: u64) -> BanDue {
    assert_eq!(reputation.charge(source, Offence::Flood, Millis(now)), None);
    reputation.charge(source, Offence::Flood, Millis(now)).unwrap()
}

/// How many offences of one kind, this far apart, it takes; `None`: a thousand do not.
#[test]
fn so_many_offences_are_a_ban() {
    use Offence::*;
    for (offence, seconds_apart, expected) in [
        (RelayAttempt, 0, Some(20)),
        (TooManyCommands, 0, Some(10)),
        (UnknownRecipients, 0, Some(20)),
        (TooManyErrors, 0, Some(5)),
        (SmugglingAttempt, 0, Some(4)),
        (EarlyTalk, 0, Some(4)),
        (IdentityClaim, 0, Some(4)),
        (Flood, 0, Some(2)),
        // A scanner that tries one trick a second, or every two.
        (RelayAttempt, 1, Some(21)),
        (RelayAttempt, 2, Some(21)),
        // 100 points are forgotten in half an hour: five in 90 seconds can go on for ever.
        (RelayAttempt, 120, None),
        (RelayAttempt, 90, None),
        (RelayAttempt, 60, Some(58)),
        (EarlyTalk, 450, None),
        (Flood, 15 * 60, None),
        (Flood, 14 * 60, Some(16)),
    ] {
        let mut reputation = Reputation::new(&Bans::default());
        let client = source("192.0.2.1");
        let banned = (0..1000).find(|count| {
            let now = Millis(count * seconds_apart * SECOND);
            reputation.charge(client, offence, now).is_some()
        });
        assert_eq!(banned.map(|count| count + 1), expected, "{offence} every {seconds_apart} s");
    }
}

/// A phone that was not told the new password, and who tries names.
#[test]
fn one_name_is_a_mistake_and_many_are_a_spray() {
    let mut reputation = Reputation::new(&Bans::default());
    let household = source("192.0.2.1");
    for minute in 0..7 * 24 * 60 {
        for name in [17, 18, 19] {
            assert_eq!(reputation.charge_password(household, name, Millis(minute * MINUTE)), None, "minute {minute}");
        }
    }
    let sprayer = source("192.0.2.2");
    let banned =
        (1..100).find(|&name| reputation.charge_password(sprayer, name, Millis(u64::from(name) * SECOND)).is_some());
    assert_eq!(banned, Some(7));
    let guesser = source("192.0.2.3");
    let banned = (1..1000).find(|&second| reputation.charge_password(guesser, 5, Millis(second * SECOND)).is_some());
    assert_eq!(banned, Some(90));
}

#[test]
fn who_delivered_lately_is_not_charged_for_content() {
    for offence in Offence::ALL {
        let mut reputation = Reputation::new(&Bans::default());
        let provider = source("192.0.2.1");
        reputation.credit(provider, true, Millis(0));
        let mut banned_at = |from: u64| {
            (0..1000)
                .map(|second| from + second * SECOND)
                .find(|now| reputation.charge(provider, offence, Millis(*now)).is_some())
        };
        assert_eq!(banned_at(DAY - 1000 * SECOND).is_none(), offence.can_be_content(), "{offence}");
        assert!(banned_at(2 * DAY + HOUR).is_some(), "{offence}: a day later it is a stranger again");
    }
}

#[test]
fn success_pays_off() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    for round in 0..1000 {
        let now = Millis(round * SECOND);
        assert_eq!(reputation.charge(client, Offence::TooManyCommands, now), None);
        reputation.credit(client, false, now);
    }
    // But not in advance.
    assert_eq!(offend(&mut reputation, client, 1000 * SECOND).count, 1);
    // Nor is anybody remembered for a password alone.
    reputation.credit(source("192.0.2.2"), false, Millis(0));
    assert_eq!(reputation.networks(), 1);
}

#[test]
fn the_reason_says_what_was_done() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("2001:db8::1");
    assert_eq!(reputation.charge(client, Offence::Flood, Millis(0)), None);
    // By now the flood is forgotten.
    let now = Millis(15 * MINUTE);
    for _ in 0..15 {
        assert_eq!(reputation.charge(client, Offence::RelayAttempt, now), None);
    }
    let sentence = reputation.charge(source("2001:db8::2"), Offence::EarlyTalk, now).unwrap();
    let expected = BanDue {
        network: "2001:db8::/64".parse().unwrap(),
        length: minutes(10),
        cause: Offence::RelayAttempt,
        reason: "15 × relay attempt, 1 × mail before its turn".to_owned(),
        count: 1,
    };
    assert_eq!(sentence, expected);
}

/// Of one /48: never enough in a /64, and then in a /56 neither.
#[test]
fn breadth_hides_nobody() {
    let network = |text: &str| -> IpNet { text.parse().unwrap() };
    let mut reputation = Reputation::new(&Bans::default());
    let sentences: Vec<_> = (0..20_u32)
        .filter_map(|number| {
            reputation.charge(source(&format!("2001:db8:0:{number:x}::1")), Offence::EarlyTalk, Millis(0))
        })
        .collect();
    assert_eq!(sentences.len(), 1);
    assert_eq!(sentences[0].network, network("2001:db8::/56"));
    assert_eq!(sentences[0].reason, "16 × mail before its turn");

    let mut reputation = Reputation::new(&Bans::default());
    let sentences: Vec<_> = (0..70_u32)
        .filter_map(|number| {
            reputation.charge(source(&format!("2001:db8:0:{number:x}00::1")), Offence::EarlyTalk, Millis(0))
        })
        .collect();
    assert_eq!(sentences.len(), 1);
    assert_eq!(sentences[0].network, network("2001:db8::/48"));
    // Neighbours in the next /48 and IPv4 hosts are counted by themselves.
    assert_eq!(reputation.charge(source("2001:db8:1::1"), Offence::EarlyTalk, Millis(0)), None);
    for number in 0..1000 {
        assert_eq!(reputation.charge(numbered(number), Offence::EarlyTalk, Millis(0)), None);
    }
}

/// What a source that is banned does goes on no wider account either.
#[test]
fn one_source_has_only_itself_banned() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("2001:db8::1");
    let sentences: Vec<_> =
        (0..1000).filter_map(|second| reputation.charge(client, Offence::Flood, Millis(second * SECOND))).collect();
    assert!(sentences.iter().all(|sentence| sentence.network.prefix_len() == 64), "{sentences:?}");
}

#[test]
fn each_ban_is_longer_up_to_the_longest() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    let mut now = 0;
    for (count, expected) in (1..).zip([10, 40, 160, 640, 24 * 60, 24 * 60]) {
        let BanDue { length, count: counted, .. } = offend(&mut reputation, client, now);
        assert_eq!((length, counted), (minutes(expected), count));
        now += expected * MINUTE;
    }
    // One millisecond short of a day without offence, and then a day.
    assert_eq!(offend(&mut reputation, client, now + DAY - 1).count, 7);
    assert_eq!(offend(&mut reputation, client, now + DAY - 1 + DAY + DAY).length, minutes(10));
}

#[test]
fn what_is_done_during_a_ban_makes_it_no_longer() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    offend(&mut reputation, client, 0);
    for now in 0..1000 {
        assert_eq!(reputation.charge(client, Offence::Flood, Millis(now)), None);
    }
    let end = 10 * MINUTE;
    assert_eq!(reputation.charge(client, Offence::Flood, Millis(end - 1)), None);
    assert_eq!(offend(&mut reputation, client, end).count, 2);
}

#[test]
fn a_pardon_forgets_all() {
    let mut reputation = Reputation::new(&Bans::default());
    let (client, other) = (source("192.0.2.1"), source("192.0.2.2"));
    offend(&mut reputation, client, 0);
    offend(&mut reputation, other, 0);
    reputation.pardon(client.network());
    reputation.pardon("192.0.2.3/32".parse().unwrap());
    assert_eq!(reputation.networks(), 1);
    assert_eq!(offend(&mut reputation, client, 1).count, 1);
    assert_eq!(offend(&mut reputation, other, 10 * MINUTE).count, 2);
}

#[test]
fn the_table_is_bounded_and_the_worst_stay() {
    let rules = Bans { sources: 100, ..Bans::default() };
    let mut reputation = Reputation::new(&rules);
    let (worst, provider) = (numbered(0), source("192.0.2.1"));
    offend(&mut reputation, worst, 0);
    reputation.credit(provider, true, Millis(0));
    for number in 1..10_000 {
        reputation.charge(numbered(number), Offence::RelayAttempt, Millis(u64::from(number)));
        assert!(reputation.networks() <= 100);
    }
    assert_eq!(offend(&mut reputation, worst, 10 * MINUTE).count, 2);
    assert!((0..100).all(|_| reputation.charge(provider, Offence::RelayAttempt, Millis(10 * MINUTE)).is_none()));
}

#[test]
fn who_has_nothing_left_on_it_makes_room() {
    let mut reputation = Reputation::new(&Bans { sources: 1000, ..Bans::default() });
    for number in 0..1000 {
        reputation.charge(numbered(number), Offence::RelayAttempt, Millis(0));
    }
    assert_eq!(reputation.networks(), 1000);
    // Each newcomer finds two whose offences are forgotten.
    for number in 1000..1400 {
        reputation.charge(numbered(number), Offence::RelayAttempt, Millis(60 * MINUTE));
    }
    assert!(reputation.networks() < 700, "{}", reputation.networks());
}

#[test]
fn time_that_goes_back_forgives_nothing() {
    let mut reputation = Reputation::new(&Bans::default());
    let client = source("192.0.2.1");
    assert_eq!(reputation.charge(client, Offence::Flood, Millis(1000)), None);
    assert!(reputation.charge(client, Offence::Flood, Millis(500)).is_some());
    assert_eq!(reputation.charge(client, Offence::Flood, Millis(u64::MAX)), None);
}

/// A source of numbers that look random: the same week in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// A large provider's outgoing host: a message every two seconds, one in fifty to somebody who does not exist, in a domain
/// that is not ours, or with a body that some stranger made to look like smuggling; now and then a session of mistakes alone,
/// and a connection that a monitor makes.
#[test]
fn a_provider_whose_users_err_is_never_banned_in_a_week() {
    let mut reputation = Reputation::new(&Bans::default());
    let (provider, mut dice) = (source("192.0.2.1"), Dice(1));
    let mistakes = [Offence::RelayAttempt, Offence::UnknownRecipients, Offence::SmugglingAttempt];
    let mut made = 0_u32;
    for second in (0..7 * DAY / SECOND).step_by(2) {
        let now = Millis(second * SECOND + dice.roll(2000) as u64);
        if dice.roll(50) > 0 {
            reputation.credit(provider, true, now);
            continue;
        }
        made += 1;
        let mistake = if dice.roll(200) == 0 { Offence::TooManyCommands } else { mistakes[dice.roll(3)] };
        assert_eq!(reputation.charge(provider, mistake, now), None, "{mistake} in second {second}");
    }
    assert!(made > 5000, "{made}");
}

/// Strangers that do nothing else are banned within a minute, a session each second.
#[test]
fn abuse_is_banned_within_a_minute() {
    for offence in [Offence::UnknownRecipients, Offence::RelayAttempt, Offence::Flood] {
        let mut reputation = Reputation::new(&Bans::default());
        let banned =
            (0..).find(|second| reputation.charge(source("192.0.2.1"), offence, Millis(second * SECOND)).is_some());
        assert!(banned.is_some_and(|second| second < 60), "{offence}: {banned:?}");
    }
}

fn offence() -> impl Strategy<Value = Offence> {
    proptest::sample::select(Offence::ALL.to_vec())
}

proptest! {
    /// One source against points added up in numbers that cannot overflow.
    #[test]
    fn the_score_is_exact(
        steps in prop::collection::vec((offence(), 0..20 * MINUTE), 1..60),
        threshold in 10_u32..1000,
        memory in 1_u64..300,
    ) {
        let rules = Bans { threshold, memory: minutes(memory), ..Bans::default() };
        let mut reputation = Reputation::new(&rules);
        let client = source("192.0.2.1");
        let (mut now, mut points) = (0_u64, 0_u128);
        let scale = u128::from(memory * MINUTE);
        for (offence, pause) in steps {
            now += pause;
            points = points.saturating_sub(u128::from(pause) * u128::from(threshold));
            points += u128::from(offence.points()) * scale;
            let sentence = reputation.charge(client, offence, Millis(now));
            prop_assert_eq!(sentence.is_some(), points.div_ceil(scale) >= u128::from(threshold));
            if sentence.is_some() {
                return Ok(());
            }
        }
    }

    /// Whatever comes, from whomever, whenever: bounded, consistent, and never banned below the threshold.
    #[test]
    fn nothing_is_too_much(
        steps in prop::collection::vec((0_u32..40, offence(), any::<bool>(), 0..u64::MAX / 64), 0..300),
        sources in 1_usize..20,
    ) {
        let rules = Bans { sources, ..Bans::default() };
        let mut reputation = Reputation::new(&rules);
        let mut now = 0_u64;
        for (number, offence, v6, pause) in steps {
            now = now.saturating_add(pause >> (pause % 64));
            let source = if v6 { source(&format!("2001:db8:0:{number:x}::1")) } else { numbered(number) };
            if offence == Offence::AuthFailure {
                reputation.credit(source, number % 2 == 0, Millis(now));
            } else if let Some(sentence) = reputation.charge(source, offence, Millis(now)) {
                prop_assert!(sentence.length >= rules.first && sentence.length <= rules.maximum);
                prop_assert!(!sentence.reason.is_empty());
                prop_assert!(sentence.network.contains(&source.ip()));
            }
            prop_assert!(reputation.networks() <= sources);
            prop_assert_eq!(reputation.index.len(), reputation.accounts.len());
            for (place, account) in reputation.accounts.iter().enumerate() {
                prop_assert_eq!(reputation.index[&account.network], place);
            }
        }
    }
}

/// Handed over to another process in between, also one that remembers for another time, offences come to the same.
#[test]
fn what_is_on_whom_goes_over_to_another_process() {
    let (mut old, client, clean) = (Reputation::new(&Bans::default()), source("192.0.2.1"), source("192.0.2.2"));
    assert_eq!(old.charge(client, Offence::Flood, Millis(MINUTE)), None);
    assert_eq!(old.charge(client, Offence::RelayAttempt, Millis(MINUTE)), None);
    old.credit(clean, false, Millis(MINUTE));
    let sentenced = offend(&mut old, source("2001:db8::1"), MINUTE);
    assert_eq!(sentenced.count, 1);
    let text = serde_json::to_string(&old.state(Millis(MINUTE))).unwrap();
    for memory in [30, 60] {
        let rules = Bans { memory: minutes(memory), ..Bans::default() };
        let mut new = Reputation::new(&rules);
        new.adopt(serde_json::from_str(&text).unwrap());
        let sentence = new.charge(client, Offence::Flood, Millis(MINUTE)).unwrap();
        assert_eq!(sentence.reason, "1 × relay attempt, 2 × flood");
        let later = Millis(MINUTE).after(Bans::default().first);
        assert_eq!(offend(&mut new, source("2001:db8::1"), later.0).count, 2, "its first ban is remembered");
        assert_eq!(new.networks(), old.state(Millis(MINUTE)).accounts.len());
    }
}
