use super::super::answer::{Answer, CaseResult, Stage};
use super::*;

/// A probe from the replies to its cases, written `ID reply`, one a line; `! why` is a problem, `!! why` one with identity.
fn probe(kind: ProbeKind, replies: &str) -> ProbeResult {
    let mut probe = ProbeResult::new(kind, "192.0.2.25:25".parse().unwrap(), None);
    for line in replies.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (id, reply) = line.split_once(' ').unwrap();
        match id {
            "!" => probe.problem = Some(Problem::Other(reply.into())),
            "!!" => probe.problem = Some(Problem::Identity(reply.into())),
            _ => {
                let (code, text) = reply.split_once(' ').unwrap();
                let answer = Answer { code: code.parse().unwrap(), text: text.into() };
                let outcome = answer.outcome(Stage::Rcpt);
                let transcript = Vec::new();
                probe.cases.push(CaseResult {
                    id: id.into(),
                    outcome,
                    stage: Stage::Rcpt,
                    answer: Some(answer),
                    transcript,
                });
            }
        }
    }
    probe
}

const REFUSES: &str =
    "H04 250 ok\nH05 550 5.1.1 User unknown\nA01 554 5.7.1 Relay access denied\nB01 554 5.7.1 Relay access denied";
const ACCEPTS: &str = "H04 250 ok\nH05 550 5.1.1 User unknown\nA01 250 ok\nB01 250 ok";
const CATCHES_ALL: &str = "H04 250 ok\nH05 250 ok\nA01 554 5.7.1 Relay access denied\nB01 250 ok";
const BOUNCES: &str = "H04 250 ok\nH05 550 5.1.1 User unknown\nA01 554 5.7.1 Relay access denied\nB01 250 ok";
const GREYLISTS_LOCAL: &str = "H04 450 4.2.0 Greylisted\nH05 450 4.2.0 Greylisted\nA01 554 5.7.1 Relay access denied";
const GREYLISTS_ALL: &str = "H04 450 4.2.0 Greylisted\nH05 450 4.2.0 Greylisted\nA01 450 4.2.0 Greylisted";
const BLOCKED: &str =
    "H04 554 5.7.1 Client host blocked\nH05 554 5.7.1 Client host blocked\nA01 554 5.7.1 Client host blocked";
const HIDDEN: &str = "H04 250 ok\nH05 550 5.1.1 User unknown\nA01 550 5.1.2 Domain not found";
const LOGIN: &str = "H04 530 5.7.0 Authentication required\nH05 530 5.7.0 Authentication required\nA01 530 5.7.0 Authentication \
                     required\nB01 530 5.7.0 Authentication required";
const DENIES_ACCESS: &str = "H04 554 5.7.1 <box@local.test>: Recipient address rejected: Access denied\nA01 554 5.7.1 <a@b.example>: \
                             Recipient address rejected: Access denied";
const TLS_FIRST: &str =
    "H04 530 5.7.0 Must issue a STARTTLS command first\nA01 530 5.7.0 Must issue a STARTTLS command first";
const DOWN: &str = "! cannot connect: connection refused";
const NO_XCLIENT: &str = "!! it does not offer XCLIENT";
/// The sender's domain does not resolve, which one core case wants.
const ONE_PUT_OFF: &str = "H04 250 ok\nA01 554 5.7.1 Relay access denied\nA08 450 4.1.8 Sender domain not found";

fn leg(naked: &str, outsider: &str, more: &[(ProbeKind, &str)]) -> Leg {
    let mut probes = vec![probe(ProbeKind::Naked, naked)];
    if !outsider.is_empty() {
        probes.push(probe(ProbeKind::Outsider, outsider));
    }
    probes.extend(more.iter().map(|(kind, replies)| probe(*kind, replies)));
    Leg { family: Family::V4, identity: !outsider.is_empty(), probes, leaks: Vec::new() }
}

/// Naked, outsider, other probes, verdict.
type Row = (&'static str, &'static str, &'static [(ProbeKind, &'static str)], State);

#[test]
fn the_table() {
    use ProbeKind::{FrontDoor, Outside, Shunned, Spoof, Trusted};
    use State::{Inconclusive, Latent, Open, Proven, SafeUnproven};
    const TURNED_AWAY: &str = "H04 554 5.7.1 Client host rejected";
    let cases: &[Row] = &[
        // The four rows.
        (ACCEPTS, ACCEPTS, &[], Open),
        (ACCEPTS, REFUSES, &[], Latent),
        (REFUSES, ACCEPTS, &[], Open),
        (REFUSES, REFUSES, &[(Trusted, ACCEPTS)], Proven),
        (REFUSES, REFUSES, &[(Trusted, REFUSES)], SafeUnproven),
        (REFUSES, REFUSES, &[], SafeUnproven),
        // Belief shown from the other side.
        (REFUSES, REFUSES, &[(Shunned, TURNED_AWAY)], Proven),
        (REFUSES, REFUSES, &[(Shunned, REFUSES)], SafeUnproven),
        // Trust is not excused by belief.
        (ACCEPTS, REFUSES, &[(Trusted, ACCEPTS)], Latent),
        // The front door.
        (ACCEPTS, ACCEPTS, &[(FrontDoor, REFUSES)], Open),
        (REFUSES, REFUSES, &[(FrontDoor, REFUSES)], SafeUnproven),
        (REFUSES, REFUSES, &[(FrontDoor, ACCEPTS)], Open),
        (REFUSES, REFUSES, &[(Outside, ACCEPTS)], Open),
        (REFUSES, REFUSES, &[(FrontDoor, DOWN)], Inconclusive),
        (REFUSES, REFUSES, &[(FrontDoor, REFUSES), (Outside, DOWN)], Inconclusive),
        (REFUSES, REFUSES, &[(Trusted, ACCEPTS), (FrontDoor, DOWN)], Inconclusive),
        // Catch-alls, backscatter and greylisting are recognised and are no relays.
        (CATCHES_ALL, CATCHES_ALL, &[], SafeUnproven),
        (BOUNCES, BOUNCES, &[], SafeUnproven),
        (GREYLISTS_LOCAL, GREYLISTS_LOCAL, &[], SafeUnproven),
        (ONE_PUT_OFF, ONE_PUT_OFF, &[], SafeUnproven),
        // Whoever wants everybody to log in denies strangers everything.
        (LOGIN, LOGIN, &[(FrontDoor, LOGIN)], SafeUnproven),
        (REFUSES, LOGIN, &[], Latent),
        (TLS_FIRST, TLS_FIRST, &[], Inconclusive),
        // What proves nothing is never safe.
        (GREYLISTS_ALL, GREYLISTS_ALL, &[], Inconclusive),
        (REFUSES, GREYLISTS_ALL, &[], Inconclusive),
        (BLOCKED, BLOCKED, &[], Inconclusive),
        (REFUSES, BLOCKED, &[], Inconclusive),
        (HIDDEN, HIDDEN, &[], Inconclusive),
        (DOWN, DOWN, &[], Inconclusive),
        (DOWN, REFUSES, &[], Inconclusive),
        (REFUSES, DOWN, &[], Inconclusive),
        (REFUSES, NO_XCLIENT, &[], Inconclusive),
        // And what was seen counts, whatever else failed.
        (ACCEPTS, DOWN, &[], Latent),
        (ACCEPTS, NO_XCLIENT, &[], Latent),
        (DOWN, ACCEPTS, &[], Open),
        (GREYLISTS_ALL, ACCEPTS, &[], Open),
        // Without identity every stranger is the gateway.
        (ACCEPTS, "", &[(FrontDoor, REFUSES)], Open),
        (REFUSES, "", &[(FrontDoor, REFUSES)], SafeUnproven),
        // Forged identity.
        (REFUSES, REFUSES, &[(Spoof, "H04 250 ok")], Latent),
        (REFUSES, REFUSES, &[(Spoof, "! it does not offer XCLIENT")], SafeUnproven),
    ];
    for (index, (naked, outsider, more, expected)) in cases.iter().enumerate() {
        let verdict = judge(&leg(naked, outsider, more));
        assert_eq!(verdict.state, *expected, "row {index}: {naked}\n--\n{outsider}\n--\n{more:?}: {verdict:?}");
    }
}

#[test]
fn an_aborted_probe_is_not_safe() {
    let aborted = format!("{REFUSES}\n! the deadline is over");
    assert_eq!(judge(&leg(&aborted, REFUSES, &[])).state, State::Inconclusive);
    // But what it accepted before counts.
    let aborted = format!("{ACCEPTS}\n! the deadline is over");
    assert_eq!(judge(&leg(&aborted, REFUSES, &[])).state, State::Latent);
}

#[test]
fn what_is_found_is_said() {
    let ids = |ids: &[&str]| ids.iter().map(|id| Box::from(*id)).collect::<Vec<Box<str>>>();
    let findings = |naked, outsider, more: &[(ProbeKind, &str)]| judge(&leg(naked, outsider, more)).findings;
    assert_eq!(
        findings(ACCEPTS, ACCEPTS, &[(ProbeKind::FrontDoor, REFUSES)]),
        [Finding::IgnoresIdentity(ids(&["A01"])), Finding::TrustsGateway(ids(&["A01"])), Finding::GuardHolds,]
    );
    assert_eq!(findings(BOUNCES, BOUNCES, &[]), [Finding::Backscatter(ids(&["B01"]))]);
    assert_eq!(findings(CATCHES_ALL, CATCHES_ALL, &[]), [Finding::CatchAll]);
    assert_eq!(findings(CATCHES_ALL, REFUSES, &[]), [Finding::UnknownUsersFromGateway]);
    assert_eq!(findings(REFUSES, REFUSES, &[(ProbeKind::Trusted, REFUSES)]), [Finding::NotBelieved]);
    assert_eq!(findings(REFUSES, REFUSES, &[(ProbeKind::Trusted, ACCEPTS)]), []);
    assert_eq!(
        findings(ACCEPTS, NO_XCLIENT, &[]),
        [Finding::TrustsGateway(ids(&["A01"])), Finding::IdentityUndeliverable("it does not offer XCLIENT".into())]
    );
    for (said, why) in
        [(GREYLISTS_ALL, "greylisting"), (BLOCKED, "the prober is blocked there"), (HIDDEN, "proof.foreign_domain")]
    {
        let found = findings(said, REFUSES, &[]);
        let Some(Finding::Undecided(ProbeKind::Naked, reason)) = found.first() else { panic!("{found:?}") };
        assert!(reason.contains(why), "{reason}");
    }
    let mut still = leg(REFUSES, REFUSES, &[]);
    still.probes[1].xclient_still_offered = true;
    assert_eq!(judge(&still).findings, [Finding::XclientStillOffered]);
}

#[test]
fn where_users_log_in() {
    let door = probe(ProbeKind::FrontDoor, LOGIN);
    assert!(door.marked(Mark::Remark).is_empty(), "530 to a local user is as it must be: {door:?}");
    assert_eq!(probe(ProbeKind::FrontDoor, TLS_FIRST).marked(Mark::Remark), [Box::from("H04")]);
    // Postfix's `reject` says the same of a listed client, so it counts only where users log in.
    let mut denying = probe(ProbeKind::Naked, DENIES_ACCESS);
    for (for_users, hello, expected) in
        [(false, "AUTH PLAIN", false), (true, "SIZE", false), (true, "AUTH PLAIN", true)]
    {
        (denying.for_users, denying.greeting.hello) = (for_users, ["mx", hello].map(str::to_owned).to_vec());
        assert_eq!(denying.outcome() == ProbeOutcome::Refuses, expected, "{for_users} {hello}");
        assert_eq!(denying.marked(Mark::Remark).is_empty(), expected, "{for_users} {hello}");
    }
    let mut leg = leg(LOGIN, LOGIN, &[(ProbeKind::FrontDoor, LOGIN)]);
    assert_eq!(judge(&leg).findings, []);
    leg.probes[2].greeting.hello = ["mx.example.com", "AUTH PLAIN"].map(str::to_owned).to_vec();
    assert_eq!(judge(&leg).findings, [Finding::LoginInClear]);
    leg.leaks = vec![Finding::AnyPassword];
    let verdict = judge(&leg);
    assert_eq!(verdict.state, State::Open);
    assert_eq!(verdict.findings[0], Finding::AnyPassword);
}

#[test]
fn leaks_are_carried_into_the_verdict() {
    let mut leg = leg(REFUSES, REFUSES, &[]);
    leg.leaks = vec![Finding::BareNewline { outsider: false }];
    let verdict = judge(&leg);
    assert_eq!(
        (verdict.state, verdict.findings),
        (State::SafeUnproven, vec![Finding::BareNewline { outsider: false }])
    );
}
