//! What a proof found, as data: the JSON report, and what the text report and `status` are written from.

use std::time::Duration;

use serde::Serialize;

use crate::backend::recognise::Recognised;
use crate::config::IdentityMode;

use super::judge::{Finding, Leg, Severity, Verdict};
use super::mend::{Facts, mend};
use super::probe::{Family, Mark, ProbeKind, ProbeOutcome, ProbeResult, State, case_of};
use super::words;

/// Everything that one `selftest` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of the program.
    pub version: &'static str,
    /// `safe`, `found` or `inconclusive`.
    pub outcome: OutcomeWord,
    /// In the configuration's order.
    pub backends: Vec<BackendReport>,
}

/// What a report comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeWord {
    /// No relay, no trust.
    Safe,
    /// A relay, or trust that must not be.
    Found,
    /// Something could not be shown.
    Inconclusive,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendReport {
    /// In the configuration.
    pub name: String,
    /// As in the configuration.
    pub address: String,
    /// As in the configuration.
    pub identity: &'static str,
    /// What it is, and what told.
    pub server: String,
    /// The worst of the legs'.
    pub state: State,
    /// How far probes went: 1 to RCPT, 2 to DATA, 3 to a message.
    pub level: u8,
    /// One for each address family of clients.
    pub legs: Vec<LegReport>,
    /// When it is worth asking again, where it put the proof off.
    #[serde(skip)]
    pub ask_again: Option<Duration>,
}

/// One address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LegReport {
    /// Of clients.
    pub family: Family,
    /// The verdict.
    pub state: State,
    /// The verdict in a sentence.
    pub summary: String,
    /// The address that the backend sees by itself.
    pub gateway: Option<String>,
    /// The address that it was told and should believe.
    pub believe: Option<String>,
    /// The worst first.
    pub findings: Vec<FindingReport>,
    /// In the order they were put.
    pub probes: Vec<ProbeReport>,
    /// Level 3: what was sent.
    pub sent: Vec<Sent>,
}

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingReport {
    /// How much it matters.
    pub severity: Severity,
    /// A sentence.
    pub text: String,
    /// What to do.
    pub mend: Option<String>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// Which.
    pub probe: ProbeKind,
    /// By which route, where there are several ways through the front door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Who was asked.
    pub server: String,
    /// From where.
    pub source: Option<String>,
    /// Whom the server was told that the client is.
    pub identity: Option<String>,
    /// `accepts`, `refuses`, `unknown`.
    pub answer: &'static str,
    /// Why it is unknown.
    pub why: Option<String>,
    /// Cases that must be refused and were.
    pub refused: usize,
    /// Cases that must be refused and were tried.
    pub of: usize,
    /// Whether no more were tried because enough had been relayed.
    pub cut_short: bool,
    /// Cases that are not tried yet.
    pub left: usize,
    /// Ids without a yes or no.
    pub undecided: Vec<Box<str>>,
    /// How the session began, word for word.
    pub opening: Vec<String>,
    /// What went otherwise than it must.
    pub failing: Vec<CaseReport>,
}

/// A case that went otherwise than it must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// `A01`.
    pub id: Box<str>,
    /// `relayed`, `odd form accepted`, `control`.
    pub what: &'static str,
    /// Whose test it was first.
    pub source: Option<Box<str>>,
    /// What was said.
    pub transcript: Vec<String>,
}

/// A message of level 3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// By which probe.
    pub probe: ProbeKind,
    /// To look for in the canary's mailbox: it is in the subject.
    pub token: String,
    /// The answer to the end of data, or why there is none.
    pub answer: String,
}

impl Serialize for Severity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What is told of a backend beside its legs.
#[derive(Debug)]
pub struct About<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: String,
    /// How it is told.
    pub mode: IdentityMode,
    /// What it is.
    pub server: &'a Recognised,
    /// How far probes went.
    pub level: u8,
}

impl BackendReport {
    /// From what was heard and judged.
    pub fn new(about: &About<'_>, legs: &[(Leg, Verdict, Vec<Sent>)]) -> Self {
        let state = legs.iter().map(|(_, verdict, _)| verdict.state).reduce(State::worst);
        Self {
            name: about.name.to_owned(),
            address: about.address.clone(),
            identity: about.mode.as_str(),
            server: about.server.how.clone(),
            state: state.unwrap_or(State::Inconclusive),
            level: about.level,
            legs: legs.iter().map(|(leg, verdict, sent)| LegReport::new(about, leg, verdict, sent)).collect(),
            ask_again: legs.iter().flat_map(|(leg, ..)| &leg.probes).filter_map(ProbeResult::ask_again).max(),
        }
    }

    /// Findings in a sentence each, with the family where there are several.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for leg in &self.legs {
            let family = if self.legs.len() > 1 { format!("{}: ", leg.family) } else { String::new() };
            for finding in leg.findings.iter().filter(|finding| finding.severity > Severity::Note) {
                sentences.push(match &finding.mend {
                    Some(mend) if finding.severity >= Severity::High => {
                        format!("{family}{}. Mend: {mend}", finding.text)
                    }
                    _ => format!("{family}{}", finding.text),
                });
            }
        }
        sentences.dedup();
        sentences
    }

    /// What it comes to.
    pub fn outcome(&self) -> OutcomeWord {
        let high = self.legs.iter().flat_map(|leg| &leg.findings).any(|finding| finding.severity >= Severity::High);
        match self.state {
            State::Open | State::Latent => OutcomeWord::Found,
            _ if high => OutcomeWord::Found,
            State::Inconclusive | State::NeverRun => OutcomeWord::Inconclusive,
            State::Proven | State::SafeUnproven => OutcomeWord::Safe,
        }
    }
}

impl Report {
    /// Of these backends.
    pub fn new(backends: Vec<BackendReport>) -> Self {
        let outcomes: Vec<_> = backends.iter().map(BackendReport::outcome).collect();
        let outcome = if outcomes.contains(&OutcomeWord::Found) {
            OutcomeWord::Found
        } else if outcomes.is_empty() || outcomes.contains(&OutcomeWord::Inconclusive) {
            OutcomeWord::Inconclusive
        } else {
            OutcomeWord::Safe
        };
        Self { version: env!("CARGO_PKG_VERSION"), outcome, backends }
    }
}

impl LegReport {
    fn new(about: &About<'_>, leg: &Leg, verdict: &Verdict, sent: &[Sent]) -> Self {
        let source = leg.probes.iter().find(|probe| probe.kind == ProbeKind::Naked).and_then(|probe| probe.source);
        let gateway = source.map(|source| source.to_string());
        let facts = Facts {
            kind: about.server.kind,
            mode: about.mode,
            gateway: gateway.clone().unwrap_or_else(|| "the gateway's address".to_owned()),
        };
        let believe = leg.probe(ProbeKind::Outsider).and_then(|probe| probe.identity);
        let told = |finding: &Finding| FindingReport {
            severity: finding.severity(),
            text: words::finding(finding, &facts),
            mend: mend(finding, &facts),
        };
        Self {
            family: leg.family,
            state: verdict.state,
            summary: words::summary(verdict, about.mode).to_owned(),
            gateway,
            believe: believe.map(|ip| ip.to_string()),
            findings: verdict.findings.iter().map(told).collect(),
            probes: leg.probes.iter().map(ProbeReport::new).collect(),
            sent: sent.to_vec(),
        }
    }
}

impl ProbeReport {
    fn new(probe: &ProbeResult) -> Self {
        let (answer, why) = match (probe.kind, probe.outcome()) {
            // These two are not asked about relaying, but about whom the server believes.
            (ProbeKind::Spoof, _) if probe.problem.is_none() => ("accepts", None),
            (ProbeKind::Shunned, _) if probe.problem.is_none() => {
                let let_in = probe.control_accept().is_some_and(|c| c.outcome == super::answer::Outcome::Accepted);
                (if let_in { "accepts" } else { "refuses" }, None)
            }
            (ProbeKind::Spoof, _) => ("refuses", probe.problem.as_ref().map(ToString::to_string)),
            (_, ProbeOutcome::Accepts(_)) => ("accepts", None),
            (_, ProbeOutcome::Refuses) => ("refuses", None),
            (_, ProbeOutcome::Unknown(why)) => ("unknown", Some(why)),
            (_, ProbeOutcome::NotRun) => ("unknown", None),
        };
        let (refused, of) = probe.refused_of();
        Self {
            probe: probe.kind,
            route: probe.route.clone(),
            server: probe.server.to_string(),
            source: probe.source.map(|source| source.to_string()),
            identity: probe.identity.map(|identity| identity.to_string()),
            answer,
            why,
            refused,
            of,
            cut_short: probe.cut_short,
            left: probe.left,
            undecided: probe.marked(Mark::Undecided),
            opening: probe.opening.clone(),
            failing: failing(probe),
        }
    }
}

fn failing(probe: &ProbeResult) -> Vec<CaseReport> {
    // Such a probe is to be let through, or turned away.
    if matches!(probe.kind, ProbeKind::Trusted | ProbeKind::Shunned | ProbeKind::Spoof) {
        return Vec::new();
    }
    let what = |mark| match mark {
        Mark::Relayed => Some("relayed"),
        Mark::Odd => Some("odd form accepted"),
        Mark::Remark => Some("control"),
        Mark::Good | Mark::Undecided => None,
    };
    let report = |result: &super::answer::CaseResult| {
        Some(CaseReport {
            id: result.id.clone(),
            what: what(probe.mark(result))?,
            source: case_of(result).and_then(|case| case.source.clone()),
            transcript: result.transcript.clone(),
        })
    };
    probe.cases.iter().filter_map(report).collect()
}
