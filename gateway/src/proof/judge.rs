//! From what the probes heard to a verdict: the table of the relay proof, as a function.
//!
//! | naked | outsider | verdict |
//! | --- | --- | --- |
//! | accepts | accepts | open: trusts the gateway's address and ignores identity |
//! | accepts | refuses | latent: one lost identity opens the relay |
//! | refuses | accepts | open: the identity itself grants trust |
//! | refuses | refuses | proven if a trusted identity is let through or a shunned one is not; else safe, unproven |
//!
//! An error is never safe: what could not be asked is inconclusive, with its reason. Pure; what to do about a finding is
//! [`mend`](super::mend)'s.

use std::net::IpAddr;

use crate::identity::host::Forwarder;

use super::answer::Outcome;
use super::probe::{Family, Mark, ProbeKind, ProbeOutcome, ProbeResult, Problem, State};

/// Everything that was asked on behalf of clients of one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// The clients'.
    pub family: Family,
    /// Whether the backend is told who clients are at all.
    pub identity: bool,
    /// In the order they were put.
    pub probes: Vec<ProbeResult>,
    /// What else the backend grants to the gateway's address.
    pub leaks: Vec<Finding>,
}

/// What is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Foreign recipients are accepted from the gateway's address.
    TrustsGateway(Vec<Box<str>>),
    /// And from a stranger whom it was told of, or would be if there were an identity.
    IgnoresIdentity(Vec<Box<str>>),
    /// A stranger may relay where the gateway itself may not.
    IdentityGrantsTrust(Vec<Box<str>>),
    /// The gateway itself lets a stranger relay.
    FrontDoorRelays(Vec<Box<str>>),
    /// Hosts that may relay do, and strangers may be hidden behind their addresses.
    HiddenClients(Vec<(IpAddr, Forwarder)>),
    /// The identity cannot be delivered; why.
    IdentityUndeliverable(String),
    /// Others than the gateway may claim an identity.
    Forgeable,
    /// XCLIENT is offered to whom XCLIENT has named.
    XclientStillOffered,
    /// The identity that should be trusted was refused, or the one that should be turned away was let in.
    NotBelieved,
    /// Users who do not exist are accepted from the gateway's address, but not from a stranger.
    UnknownUsersFromGateway,
    /// Strangers must log in before they send, and the gateway's address need not.
    NoLoginFromGateway,
    /// The gateway's own listener lets clients log in without TLS.
    LoginInClear,
    /// An account that does not exist was logged in as.
    AnyPassword,
    /// Whether it can be is not known; why.
    LoginUndecided(String),
    /// Users who do not exist are accepted from everybody.
    CatchAll,
    /// Odd forms are accepted, though users who do not exist are not.
    Backscatter(Vec<Box<str>>),
    /// A bare newline ends a message. `outsider`: for strangers too.
    BareNewline {
        /// Whether strangers may do it too.
        outsider: bool,
    },
    /// Commands may be refused without end from the gateway's address, but not from a stranger.
    NoErrorLimit,
    /// The guard keeps strangers from relaying although the backend would let them.
    GuardHolds,
    /// It has no place for the proof's sessions now: at which question, and what it said.
    Busy(ProbeKind, String),
    /// Cases of a question that are not tried yet: how many, and why.
    RestLater(ProbeKind, usize, String),
    /// A question without an answer: which, and why.
    Undecided(ProbeKind, String),
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// To be mended in time.
    Warning,
    /// Trust that must not be.
    High,
    /// An open relay.
    Critical,
}

/// A leg's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In a word.
    pub state: State,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::IgnoresIdentity(_) | Self::IdentityGrantsTrust(_) | Self::FrontDoorRelays(_) | Self::AnyPassword => {
                Severity::Critical
            }
            Self::TrustsGateway(_)
            | Self::HiddenClients(..)
            | Self::Forgeable
            | Self::UnknownUsersFromGateway
            | Self::NoLoginFromGateway => Severity::High,
            Self::IdentityUndeliverable(_)
            | Self::XclientStillOffered
            | Self::NotBelieved
            | Self::BareNewline { .. }
            | Self::NoErrorLimit
            | Self::Backscatter(_)
            | Self::LoginInClear
            | Self::LoginUndecided(_)
            | Self::Busy(..)
            | Self::Undecided(..) => Severity::Warning,
            Self::CatchAll | Self::GuardHolds | Self::RestLater(..) => Severity::Note,
        }
    }
}

impl Leg {
    /// The probe of this kind, if it was made.
    pub fn probe(&self, kind: ProbeKind) -> Option<&ProbeResult> {
        self.probes.iter().find(|probe| probe.kind == kind)
    }

    fn outcome(&self, kind: ProbeKind) -> ProbeOutcome {
        self.probe(kind).map_or(ProbeOutcome::NotRun, ProbeResult::outcome)
    }

    /// Whether it was shown that the backend believes what it is told.
    fn is_believed(&self) -> bool {
        let shunned = || {
            let control = |kind| self.probe(kind).and_then(ProbeResult::control_accept).map(|result| &result.outcome);
            control(ProbeKind::Outsider) == Some(&Outcome::Accepted)
                && control(ProbeKind::Shunned) == Some(&Outcome::Refused)
        };
        matches!(self.outcome(ProbeKind::Trusted), ProbeOutcome::Accepts(_)) || shunned()
    }
}

/// The table.
pub fn judge(leg: &Leg) -> Verdict {
    let naked = leg.outcome(ProbeKind::Naked);
    // Whoever is told nothing takes every stranger for the gateway.
    let outsider = if leg.identity { leg.outcome(ProbeKind::Outsider) } else { naked.clone() };
    let mut findings = leg.leaks.clone();
    let mut state = match (&naked, &outsider) {
        (ProbeOutcome::Accepts(naked), ProbeOutcome::Accepts(outsider)) => {
            findings.push(Finding::IgnoresIdentity(outsider.clone()));
            findings.push(Finding::TrustsGateway(naked.clone()));
            State::Open
        }
        (_, ProbeOutcome::Accepts(ids)) => {
            findings.push(Finding::IdentityGrantsTrust(ids.clone()));
            State::Open
        }
        (ProbeOutcome::Accepts(ids), _) => {
            findings.push(Finding::TrustsGateway(ids.clone()));
            State::Latent
        }
        (ProbeOutcome::Refuses, ProbeOutcome::Refuses) if leg.is_believed() => State::Proven,
        (ProbeOutcome::Refuses, ProbeOutcome::Refuses) => State::SafeUnproven,
        _ => State::Inconclusive,
    };
    for kind in [ProbeKind::FrontDoor, ProbeKind::Outside] {
        if let ProbeOutcome::Accepts(ids) = leg.outcome(kind) {
            findings.push(Finding::FrontDoorRelays(ids));
            state = State::Open;
        }
    }
    if state == State::Open && leg.outcome(ProbeKind::FrontDoor) == ProbeOutcome::Refuses {
        findings.push(Finding::GuardHolds);
    }
    if findings.contains(&Finding::AnyPassword) {
        // Every stranger is a user then.
        state = State::Open;
    }
    undecided(leg, &mut findings);
    let is_whole = |kind| matches!(kind, ProbeKind::FrontDoor | ProbeKind::Outside | ProbeKind::Hidden);
    let mut whole = leg.probes.iter().filter(|probe| is_whole(probe.kind)).map(ProbeResult::outcome);
    if state.is_safe() && whole.any(|outcome| matches!(outcome, ProbeOutcome::Unknown(_))) {
        state = State::Inconclusive;
    }
    hidden_clients(leg, &mut findings);
    identity(leg, &mut findings);
    users(leg, &mut findings);
    logins(leg, &mut findings);
    if findings
        .iter()
        .any(|finding| matches!(finding, Finding::Forgeable | Finding::HiddenClients(..) | Finding::NoLoginFromGateway))
    {
        // Whoever can reach the backend, or a forwarder, or the backend without an identity, can be a trusted client.
        state = state.worst(State::Latent);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    Verdict { state, findings }
}

/// Strangers whom the gateway could not tell from a host that may relay.
fn hidden_clients(leg: &Leg, findings: &mut Vec<Finding>) {
    let relays =
        |probe: &&ProbeResult| probe.kind == ProbeKind::Hidden && matches!(probe.outcome(), ProbeOutcome::Accepts(_));
    let forwarders = leg.probes.iter().filter(relays).filter_map(|probe| probe.identity.zip(probe.forwarder));
    let forwarders: Vec<_> = forwarders.collect();
    if !forwarders.is_empty() {
        findings.push(Finding::HiddenClients(forwarders));
    }
}

/// Questions without an answer, or not asked to the end.
fn undecided(leg: &Leg, findings: &mut Vec<Finding>) {
    for probe in &leg.probes {
        match (probe.kind, probe.outcome()) {
            (ProbeKind::Spoof | ProbeKind::Shunned | ProbeKind::Trusted, _) if probe.problem.is_none() => {}
            (ProbeKind::Spoof, _) => {}
            (ProbeKind::Outsider, ProbeOutcome::Unknown(_)) if matches!(probe.problem, Some(Problem::Identity(_))) => {
                let why = probe.problem.as_ref().map(ToString::to_string).unwrap_or_default();
                findings.push(Finding::IdentityUndeliverable(why));
            }
            (kind, ProbeOutcome::Unknown(why)) if matches!(probe.problem, Some(Problem::Busy(_))) => {
                findings.push(Finding::Busy(kind, why));
            }
            (kind, ProbeOutcome::Unknown(why)) => findings.push(Finding::Undecided(kind, why)),
            (kind, _) if probe.left > 0 && !probe.cut_short => {
                let why = probe.stopped.clone().or_else(|| probe.pace.clone()).unwrap_or_default();
                findings.push(Finding::RestLater(kind, probe.left, why));
            }
            _ => {}
        }
    }
}

/// Signs that the identity is ignored, or anybody's to claim.
fn identity(leg: &Leg, findings: &mut Vec<Finding>) {
    if leg.probe(ProbeKind::Outsider).is_some_and(|probe| probe.xclient_still_offered) {
        findings.push(Finding::XclientStillOffered);
    }
    // A spoof that was carried through, whatever its cases came to, had its identity taken.
    if leg.probe(ProbeKind::Spoof).is_some_and(|probe| probe.problem.is_none()) {
        findings.push(Finding::Forgeable);
    }
    let asked = |kind| leg.probe(kind).is_some_and(|probe| probe.problem.is_none());
    if (asked(ProbeKind::Trusted) || asked(ProbeKind::Shunned)) && !leg.is_believed() {
        findings.push(Finding::NotBelieved);
    }
}

/// Who must log in, and where.
fn logins(leg: &Leg, findings: &mut Vec<Finding>) {
    let control = |kind| leg.probe(kind).and_then(ProbeResult::control_accept);
    let let_in = control(ProbeKind::Naked).is_some_and(|result| result.outcome == Outcome::Accepted);
    let outsider = leg.probe(ProbeKind::Outsider);
    let must_log_in = |probe: &ProbeResult| probe.control_accept().is_some_and(|result| probe.wants_login(result));
    if let_in && outsider.is_some_and(must_log_in) {
        findings.push(Finding::NoLoginFromGateway);
    }
    let doors = [ProbeKind::FrontDoor, ProbeKind::Outside];
    if doors.into_iter().filter_map(|kind| leg.probe(kind)).any(|probe| probe.offers("AUTH")) {
        findings.push(Finding::LoginInClear);
    }
}

/// Who is taken for a local user.
fn users(leg: &Leg, findings: &mut Vec<Finding>) {
    let unknown = |kind| leg.probe(kind).and_then(ProbeResult::control_refuse).map(|result| &result.outcome);
    let stranger = if leg.identity { ProbeKind::Outsider } else { ProbeKind::FrontDoor };
    let (naked, outsider) = (unknown(ProbeKind::Naked), unknown(stranger));
    if naked == Some(&Outcome::Accepted) && outsider == Some(&Outcome::Refused) && leg.identity {
        findings.push(Finding::UnknownUsersFromGateway);
    }
    if outsider == Some(&Outcome::Accepted) {
        // Odd local parts are then users like any other.
        findings.push(Finding::CatchAll);
    } else if let Some(probe) = leg.probe(stranger).filter(|probe| probe.outcome() == ProbeOutcome::Refuses) {
        let odd = probe.marked(Mark::Odd);
        if !odd.is_empty() {
            findings.push(Finding::Backscatter(odd));
        }
    }
}

#[cfg(test)]
mod tests;
