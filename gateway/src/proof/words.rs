//! Findings and verdicts in sentences: what is the case, and what follows for whoever must answer for it.

use std::net::IpAddr;

use crate::config::IdentityMode;
use crate::identity::host::Forwarder;

use super::judge::{Finding, Severity, Verdict};
use super::mend::Facts;
use super::probe::{ProbeKind, State};

impl Severity {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// The verdict in a sentence.
pub(super) fn summary(verdict: &Verdict, mode: IdentityMode) -> &'static str {
    let finds = |wanted: fn(&Finding) -> bool| verdict.findings.iter().any(wanted);
    match verdict.state {
        State::Proven => "strangers cannot relay, and the mail server believes the gateway about who they are",
        State::SafeUnproven if !mode.tells() => {
            "strangers cannot relay, but the mail server decides without knowing them from the gateway (`identity`)"
        }
        State::SafeUnproven if mode.is_transparent() => {
            "strangers cannot relay; the mail server gets connections from their own addresses, and sees those unless \
             something between translates them, which was not shown (name an address that it trusts in `proof.trusted`, or one \
             that it turns away in `proof.shunned`)"
        }
        State::SafeUnproven => {
            "strangers cannot relay; that the mail server believes who they are was not shown (name an address that it \
             trusts in `proof.trusted`, or one that it turns away in `proof.shunned`)"
        }
        State::Latent if finds(|f| matches!(f, Finding::TrustsGateway(_))) => {
            "the mail server trusts the gateway's address: one lost identity, and the system is an open relay"
        }
        State::Latent if finds(|f| matches!(f, Finding::HiddenClients(..))) => {
            "the gateway lets an address relay behind which strangers may be hidden: one forwarder before it, and the system is \
             an open relay"
        }
        State::Latent if finds(|f| matches!(f, Finding::NoLoginFromGateway)) => {
            "the mail server lets the gateway's address send without a password: one lost identity, and so may every stranger"
        }
        State::Latent => {
            "others than the gateway may say who the client is: whoever can reach the mail server can be anybody"
        }
        State::Open => "OPEN RELAY: the mail server relays for strangers who come through the gateway",
        State::Inconclusive => "nothing is proven: what the mail server would do is not known",
        State::NeverRun => "no proof has run",
    }
}

/// One finding in a sentence, without its mend.
pub(super) fn finding(finding: &Finding, facts: &Facts) -> String {
    let Facts { gateway, mode, .. } = facts;
    match finding {
        Finding::TrustsGateway(ids) => {
            format!("it accepts mail to foreign domains from {gateway} ({})", cases(ids))
        }
        Finding::IgnoresIdentity(_) if *mode == IdentityMode::None => {
            "it is told nothing of who the client is, so every stranger has the gateway's rights".to_owned()
        }
        Finding::IgnoresIdentity(_) if mode.is_trace_header() => {
            "it is told who the client is only in the message's header, so every stranger has the gateway's rights".to_owned()
        }
        Finding::IgnoresIdentity(ids) => format!(
            "told that the client is a stranger, it accepts mail to foreign domains all the same ({}): it ignores who the \
             client is",
            cases(ids)
        ),
        Finding::IdentityGrantsTrust(ids) => format!(
            "told that the client is a stranger, it accepts mail to foreign domains ({}), which it does not accept from \
             the gateway itself: the identity grants trust",
            cases(ids)
        ),
        Finding::FrontDoorRelays(ids) => {
            format!("a stranger at the gateway's own listener gets mail to foreign domains accepted ({})", cases(ids))
        }
        Finding::IdentityUndeliverable(why) => {
            format!("it cannot be told who the client is: {why}; the gateway therefore answers all mail 451")
        }
        Finding::Forgeable => {
            "it believes another host than the gateway about who the client is: whoever can reach it can be anybody".to_owned()
        }
        Finding::XclientStillOffered => "having been told by XCLIENT that the client is a stranger, it offers that stranger \
                                         XCLIENT: it ignores the address, or lets everybody use XCLIENT"
            .to_owned(),
        Finding::NotBelieved => "the identity that should have made a difference made none: it is not believed, or the \
                                 address in `proof.trusted` or `proof.shunned` is not what it is said to be"
            .to_owned(),
        Finding::UnknownUsersFromGateway => format!(
            "it accepts users who do not exist from {gateway}, and refuses them to a stranger: a second sign of trust"
        ),
        Finding::NoLoginFromGateway => format!(
            "it lets {gateway} send without AUTH, and refuses a stranger who has not logged in: the gateway's address stands for \
             a password"
        ),
        Finding::LoginInClear => {
            "the gateway's own listener offers AUTH before TLS: passwords go over the wire in clear".to_owned()
        }
        Finding::AnyPassword => "an account that does not exist was logged in as, with a password that is none: it lets \
                                 everybody in, and whoever is in may send anywhere"
            .to_owned(),
        Finding::LoginUndecided(why) => {
            format!("whether an account that does not exist can be logged in as is not known: {why}")
        }
        Finding::CatchAll => {
            "it accepts users who do not exist: a catch-all, or it bounces their mail later to whoever is named as sender \
             (backscatter)"
                .to_owned()
        }
        Finding::Backscatter(ids) => format!(
            "it accepts local addresses in forms that were routes once ({}) although it refuses users who do not exist; \
             most servers bounce them later (backscatter), some relay",
            cases(ids)
        ),
        Finding::BareNewline { outsider: true } => {
            "a line feed on its own ends a message there, for strangers too: messages can be smuggled in".to_owned()
        }
        Finding::BareNewline { outsider: false } => format!(
            "a line feed on its own ends a message from {gateway}, though not from a stranger: trust lifts the protection \
             against smuggled messages"
        ),
        Finding::NoErrorLimit => {
            format!("{gateway} may have any number of commands refused, a stranger may not: trust lifts its limits")
        }
        Finding::GuardHolds => {
            "the gateway's guard holds meanwhile: strangers' foreign recipients are refused before the mail server hears \
             of them"
                .to_owned()
        }
        Finding::HiddenClients(forwarders) => {
            let named = |(ip, whose): &(IpAddr, Forwarder)| format!("{ip}, {}", whose.as_str());
            let named: Vec<_> = forwarders.iter().map(named).collect();
            format!(
                "who comes from {}? That may relay by `relay.allowed_networks`, and mail from there to a foreign domain is \
                 accepted: if a forwarder or a NAT before the gateway hides its clients behind it, every stranger relays",
                named.join(", or ")
            )
        }
        Finding::Busy(kind, why) => format!("{}, for it is busy: {why}", question(*kind)),
        Finding::RestLater(kind, left, why) => {
            format!("{} cases of `{}` are not tried yet: {why}; the verdict rests on the others", left, kind.as_str())
        }
        Finding::Undecided(kind, why) => format!("{}: {why}", question(*kind)),
    }
}

/// What a probe asks, as the subject of "is not known, because".
fn question(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Naked => "whether it trusts the gateway's address is not known",
        ProbeKind::Outsider => "whether it refuses a stranger that it is told about is not known",
        ProbeKind::Trusted => "whether it believes a trusted address is not known",
        ProbeKind::Shunned => "whether it believes a shunned address is not known",
        ProbeKind::FrontDoor => "what a stranger gets at the gateway's own listener is not known",
        ProbeKind::Outside => "what a stranger gets over a real connection is not known",
        ProbeKind::Hidden => "what a stranger gets who is hidden behind a host that may relay is not known",
        ProbeKind::Spoof => "whether others may claim an identity is not known",
    }
}

fn cases(ids: &[Box<str>]) -> String {
    match ids {
        [] => "no case".to_owned(),
        [one] => format!("case {one}"),
        [first, .., last] => format!("{} cases, {first} to {last}", ids.len()),
    }
}
