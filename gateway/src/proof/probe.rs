//! What was sent and what came back: the words that planner, runner, judge and report share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::backend::recognise::Greeting;
use crate::identity::host::Forwarder;

use super::answer::{CaseResult, Outcome};
use super::cases::{Case, Expect, Form, cases};

/// Before a server that had no place for the proof is asked again.
const BUSY_PAUSE: Duration = Duration::from_secs(60);

/// A question put to a backend, or to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// J1: from the gateway's address, without identity. Does the backend trust the gateway's address?
    Naked,
    /// J2: with a stranger's identity. Does it refuse a stranger that it is told about?
    Outsider,
    /// J3: with an identity that the operator says is trusted. Is the identity believed at all?
    Trusted,
    /// The same question from the other side: an identity that the operator says is turned away.
    Shunned,
    /// J4: a stranger at the gateway's own listener, through its own code.
    FrontDoor,
    /// J4 over a real socket, from an address of this host.
    Outside,
    /// J4 as a host that may relay, and behind whose address a forwarder or a NAT may hide strangers.
    Hidden,
    /// Identity claimed from an address that is not the gateway's.
    Spoof,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// One probe as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Which question.
    pub kind: ProbeKind,
    /// Whom it was put to.
    pub server: SocketAddr,
    /// The address that the server saw.
    pub source: Option<IpAddr>,
    /// Whom the server was told that the client is.
    pub identity: Option<IpAddr>,
    /// Whose the identity is, where strangers may be hidden behind it.
    pub forwarder: Option<Forwarder>,
    /// Whether nobody but users comes that way, who must log in.
    pub for_users: bool,
    /// By which route it came in.
    pub route: Option<String>,
    /// How the server greeted.
    pub greeting: Greeting,
    /// How its first session began, word for word.
    pub opening: Vec<String>,
    /// Whether it still offered XCLIENT to a client that XCLIENT had named.
    pub xclient_still_offered: bool,
    /// The cases that were tried.
    pub cases: Vec<CaseResult>,
    /// Whether no more were tried because enough had been relayed.
    pub cut_short: bool,
    /// Cases that are still to be tried.
    pub left: usize,
    /// Why they cannot be tried now.
    pub stopped: Option<String>,
    /// How a slow server lets itself be asked.
    pub pace: Option<String>,
    /// Why it could not be carried through.
    pub problem: Option<Problem>,
}

/// Why a probe could not be carried through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The backend does not take the identity: sessions fail the same way, closed.
    Identity(String),
    /// It answers 421: it is there, and has no place or patience for one more session now.
    Busy(String),
    /// Anything else.
    Other(String),
}

/// What the cases of a probe come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// These cases were accepted, and nothing but relaying explains it.
    Accepts(Vec<Box<str>>),
    /// Relaying was denied.
    Refuses,
    /// Nothing is shown; why.
    Unknown(String),
    /// Not asked.
    NotRun,
}

/// How one case counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// As it must be.
    Good,
    /// A relay.
    Relayed,
    /// Accepted, and perhaps bounced later.
    Odd,
    /// Refused where RFC 5321 or a control wants it accepted, or a control that was accepted.
    Remark,
    /// Neither.
    Undecided,
}

impl ProbeKind {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Naked => "naked",
            Self::Outsider => "outsider",
            Self::Trusted => "trusted",
            Self::Shunned => "shunned",
            Self::FrontDoor => "front door",
            Self::Outside => "outside",
            Self::Hidden => "hidden",
            Self::Spoof => "spoof",
        }
    }
}

impl Family {
    /// An address's.
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(why) | Self::Busy(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

/// The case behind a result.
pub(super) fn case_of(result: &CaseResult) -> Option<&'static Case> {
    cases().iter().find(|case| case.id == result.id)
}

/// How a result counts by itself.
fn mark(result: &CaseResult) -> Mark {
    let Some(case) = case_of(result) else { return Mark::Undecided };
    match (case.expect, &result.outcome) {
        (_, Outcome::Deferred | Outcome::Lost(_) | Outcome::Hidden) => Mark::Undecided,
        (Expect::Refuse, Outcome::Accepted) if case.form() == Form::Foreign => Mark::Relayed,
        (Expect::Refuse, Outcome::Accepted) => Mark::Odd,
        (Expect::ControlRefuse, Outcome::Accepted) => Mark::Remark,
        (Expect::Accept | Expect::ControlAccept, Outcome::Refused) => Mark::Remark,
        _ => Mark::Good,
    }
}

impl ProbeResult {
    /// Nothing was heard yet.
    pub fn new(kind: ProbeKind, server: SocketAddr, identity: Option<IpAddr>) -> Self {
        Self {
            kind,
            server,
            source: None,
            identity,
            forwarder: None,
            for_users: false,
            route: None,
            greeting: Greeting::default(),
            opening: Vec::new(),
            xclient_still_offered: false,
            cases: Vec::new(),
            cut_short: false,
            left: 0,
            stopped: None,
            pace: None,
            problem: None,
        }
    }

    /// How a result counts.
    pub fn mark(&self, result: &CaseResult) -> Mark {
        match mark(result) {
            Mark::Remark if result.outcome == Outcome::Refused && self.wants_login(result) => Mark::Good,
            mark => mark,
        }
    }

    /// Whether it was refused for want of a login, as everybody is then.
    pub(super) fn wants_login(&self, result: &CaseResult) -> bool {
        let Some(answer) = result.answer.as_ref().filter(|_| result.outcome == Outcome::Refused) else { return false };
        answer.demands_login() || (self.for_users && self.offers("AUTH") && answer.denies_access())
    }

    /// Whether its EHLO reply offers this.
    pub fn offers(&self, keyword: &str) -> bool {
        let first =
            |line: &String| line.split([' ', '=']).next().is_some_and(|word| word.eq_ignore_ascii_case(keyword));
        self.greeting.hello.iter().skip(1).any(first)
    }

    /// A case's result, if it was tried.
    pub fn case(&self, id: &str) -> Option<&CaseResult> {
        self.cases.iter().find(|result| &*result.id == id)
    }

    /// The local user who exists.
    pub fn control_accept(&self) -> Option<&CaseResult> {
        self.case("H04")
    }

    /// The local user who does not.
    pub fn control_refuse(&self) -> Option<&CaseResult> {
        self.case("H05")
    }

    /// Ids of the results with this mark.
    pub fn marked(&self, wanted: Mark) -> Vec<Box<str>> {
        self.cases.iter().filter(|result| self.mark(result) == wanted).map(|result| result.id.clone()).collect()
    }

    /// Of the cases that must be refused: how many were, and how many were tried.
    pub fn refused_of(&self) -> (usize, usize) {
        let must = |result: &&CaseResult| case_of(result).is_some_and(|case| case.expect == Expect::Refuse);
        let refused = self.cases.iter().filter(must).filter(|result| result.outcome == Outcome::Refused).count();
        (refused, self.cases.iter().filter(must).count())
    }

    /// What it comes to.
    pub fn outcome(&self) -> ProbeOutcome {
        let relayed = self.marked(Mark::Relayed);
        if !relayed.is_empty() {
            return ProbeOutcome::Accepts(relayed);
        }
        if let Some(problem) = &self.problem {
            return ProbeOutcome::Unknown(problem.to_string());
        }
        let control = self.control_accept();
        let core = || self.cases.iter().filter(|result| case_of(result).is_some_and(Case::is_core));
        if core().any(|result| result.is_clean_denial(control) || self.wants_login(result)) {
            return ProbeOutcome::Refuses;
        }
        ProbeOutcome::Unknown(self.why_unknown(core().collect()))
    }

    /// How long the backend is to be left alone before it is asked again, if it put the question off. What the gateway itself
    /// puts off is no greylisting.
    pub(super) fn ask_again(&self) -> Option<Duration> {
        if matches!(self.problem, Some(Problem::Busy(_))) {
            return Some(BUSY_PAUSE);
        }
        let is_direct = matches!(self.kind, ProbeKind::Naked | ProbeKind::Outsider);
        if !is_direct || !matches!(self.outcome(), ProbeOutcome::Unknown(_)) {
            return None;
        }
        self.cases.iter().filter_map(|result| result.answer.as_ref()?.put_off()).max()
    }

    /// Whether even its own user is turned away because the client has no name in DNS.
    pub(super) fn turns_nameless_away(&self) -> bool {
        let control = self.control_accept().and_then(|control| control.answer.as_ref());
        control.is_some_and(|answer| answer.code >= 400 && answer.wants_a_name())
    }

    /// The sentence that says why refusals, if there are any, prove nothing.
    fn why_unknown(&self, core: Vec<&CaseResult>) -> String {
        let said = |result: &CaseResult| match &result.answer {
            Some(answer) => format!("{} {}", answer.code, answer.text),
            None => "nothing".to_owned(),
        };
        if let Some(wants_tls) = core.iter().filter_map(|result| result.answer.as_ref()).find(|a| a.demands_tls()) {
            return format!(
                "it answers nothing before TLS ({} {}); set `tls` for this backend where that is offered, or let it take the \
                 gateway's connections in clear",
                wants_tls.code, wants_tls.text
            );
        }
        if let Some(control) = self.control_accept() {
            match control.outcome {
                Outcome::Deferred | Outcome::Refused if self.turns_nameless_away() => {
                    return format!(
                        "it turns away whoever has no name in DNS, its own user's mail too ({}): give the gateway's address \
                         a name (a PTR record and its address), exempt it there from that restriction, and name in \
                         `proof.outsiders` an address that has a name",
                        said(control)
                    );
                }
                Outcome::Deferred => {
                    return format!(
                        "it puts off even its own user ({}): greylisting, a limit or a fault; try again later, or exempt \
                         the gateway's address there",
                        said(control)
                    );
                }
                Outcome::Refused | Outcome::Hidden => {
                    return format!(
                        "it refuses even its own user ({}), so its refusals prove nothing: the prober is blocked there, or \
                         `proof.local_user` does not exist",
                        said(control)
                    );
                }
                Outcome::Lost(ref why) => return why.clone(),
                Outcome::Accepted => {}
            }
        }
        if let Some(hidden) = core.iter().find(|result| result.outcome == Outcome::Hidden) {
            return format!(
                "it does not believe in the foreign domain ({}), which hides whether it would relay; name one that \
                 resolves in `proof.foreign_domain`",
                said(hidden)
            );
        }
        if let Some(deferred) = core.iter().find(|result| result.outcome == Outcome::Deferred) {
            return format!(
                "it puts off foreign recipients ({}), which is neither yes nor no; try again later",
                said(deferred)
            );
        }
        match core.first() {
            Some(first) => format!("its answers say nothing of relaying ({})", said(first)),
            None => "nothing was asked".to_owned(),
        }
    }
}

/// The verdict of a proof, of one backend or one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Strangers are refused, and the backend believes who the client is.
    Proven,
    /// Strangers are refused; that the identity is believed was not shown.
    SafeUnproven,
    /// The backend trusts the gateway's address: one lost identity opens the relay.
    Latent,
    /// The backend relays for strangers.
    Open,
    /// Nothing is shown.
    Inconclusive,
    /// It has not run.
    NeverRun,
}

impl State {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Proven, Self::SafeUnproven, Self::Latent, Self::Open, Self::Inconclusive, Self::NeverRun];

    /// As it is written in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::SafeUnproven => "safe-unproven",
            Self::Latent => "latent",
            Self::Open => "open",
            Self::Inconclusive => "inconclusive",
            Self::NeverRun => "never-run",
        }
    }

    /// Whether nothing was found.
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Proven | Self::SafeUnproven)
    }

    /// Of several verdicts the one that counts.
    pub fn worst(self, other: Self) -> Self {
        let rank = |state| match state {
            Self::Open => 5,
            Self::Latent => 4,
            Self::Inconclusive => 3,
            Self::NeverRun => 2,
            Self::SafeUnproven => 1,
            Self::Proven => 0,
        };
        if rank(self) >= rank(other) { self } else { other }
    }
}
