//! The report for people: the verdict first, then why, what to do, what it rests on, and at the end every case that failed,
//! word for word.

use std::fmt::Write as _;

use crate::observe::show::PLAIN;
use crate::observe::table::Table;

use super::probe::{ProbeKind, State};
use super::report::{BackendReport, FindingReport, LegReport, OutcomeWord, ProbeReport, Report};

/// Columns of a page.
const WIDTH: usize = 110;

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[1;32m";
const YELLOW: &str = "\x1b[1;33m";

/// A page for a terminal (`colour`) or a file.
pub fn render(report: &Report, colour: bool) -> String {
    let mut page = String::new();
    for backend in &report.backends {
        backend_page(backend, colour, &mut page);
        for leg in &backend.legs {
            for probe in &leg.probes {
                failing_page(leg, probe, &mut page);
            }
        }
    }
    let last = match report.outcome {
        OutcomeWord::Safe => "Nothing was found.",
        OutcomeWord::Found => "Trust was found that must not be. Mend it, then run `smtp-gateway selftest` again.",
        OutcomeWord::Inconclusive => "Something could not be shown, which is not the same as safe.",
    };
    line(&mut page, last);
    page
}

/// The same without what was said word for word.
pub fn brief(report: &Report) -> String {
    let mut page = String::new();
    for backend in &report.backends {
        backend_page(backend, false, &mut page);
    }
    page
}

/// A String takes everything.
fn line(page: &mut String, text: &str) {
    let _ = writeln!(page, "{}", text.trim_end());
}

fn backend_page(backend: &BackendReport, colour: bool, page: &mut String) {
    let BackendReport { name, address, identity, server, level, legs, .. } = backend;
    for leg in legs {
        let (paint, plain) = if colour { (paint(leg.state), PLAIN) } else { ("", "") };
        line(page, &format!("{paint}{}{plain}  {name}, {} clients", leg.state.as_str().to_uppercase(), leg.family));
        wrapped(page, "  ", "  ", &leg.summary);
        line(page, "");
    }
    wrapped(page, "", "  ", &format!("{name} is {address} ({server}), told of clients by identity = \"{identity}\"."));
    line(page, "");
    for (index, leg) in legs.iter().enumerate() {
        // What two families have in common is said once.
        let before = legs[..index].iter().find(|before| before.findings == leg.findings);
        leg_page(leg, before, *level, page);
    }
}

fn leg_page(leg: &LegReport, before: Option<&LegReport>, level: u8, page: &mut String) {
    line(page, &format!("{} clients", leg.family));
    match before {
        Some(before) if !leg.findings.is_empty() => {
            line(page, &format!("  the same findings as for {}", before.family))
        }
        _ => leg.findings.iter().for_each(|finding| finding_page(finding, page)),
    }
    line(page, "");
    for row in Table::new(["PROBE", "TOLD", "FROM", "ANSWER", "REFUSED"], leg.probes.iter().map(row)).lines() {
        line(page, &format!("  {row}"));
    }
    for probe in &leg.probes {
        if let Some(why) = &probe.why {
            wrapped(page, &format!("  {}: ", word(probe.probe)), "    ", why);
        }
        if probe.why.is_none() && !probe.undecided.is_empty() {
            let text = format!("neither yes nor no to {}", probe.undecided.join(" "));
            wrapped(page, &format!("  {}: ", word(probe.probe)), "    ", &text);
        }
    }
    line(page, "");
    if let (Some(gateway), Some(believe)) = (&leg.gateway, &leg.believe) {
        let text =
            format!("The mail server sees {gateway}, the gateway. It should believe {believe}, whom it is told of.");
        wrapped(page, "  ", "  ", &text);
    }
    let evidence = match level {
        1 => "Evidence level 1: recipients were answered and taken back (RSET); nothing was sent.",
        2 => {
            "Evidence level 2: accepted recipients were followed by DATA, and the connection was dropped; nothing was sent."
        }
        _ => "Evidence level 3: where relaying was found, one message was sent to the canary.",
    };
    wrapped(page, "  ", "  ", evidence);
    for sent in &leg.sent {
        let text = format!("{}: look for `{}` in the canary's mailbox; {}", word(sent.probe), sent.token, sent.answer);
        wrapped(page, "  ", "    ", &text);
    }
    line(page, "");
}

fn finding_page(FindingReport { severity, text, mend }: &FindingReport, page: &mut String) {
    wrapped(page, &format!("  {:<9} ", severity.as_str()), "            ", text);
    if let Some(mend) = mend {
        wrapped(page, "            mend: ", "                  ", mend);
    }
}

fn row(probe: &ProbeReport) -> [String; 5] {
    let told = probe.identity.clone().filter(|_| probe.probe != ProbeKind::Outside);
    [
        match &probe.route {
            Some(route) => format!("{} by {route}", word(probe.probe)),
            None => word(probe.probe).to_owned(),
        },
        told.unwrap_or_else(|| "nobody".to_owned()),
        probe.source.clone().unwrap_or_else(|| "within".to_owned()),
        probe.answer.to_owned(),
        match probe.of {
            _ if matches!(
                probe.probe,
                ProbeKind::Trusted | ProbeKind::Shunned | ProbeKind::Spoof | ProbeKind::Hidden
            ) =>
            {
                "-".to_owned()
            }
            0 => "-".to_owned(),
            of if probe.left > 0 && !probe.cut_short && probe.why.is_none() => {
                format!("{} of {of}, {} later", probe.refused, probe.left)
            }
            of if probe.cut_short => format!("{} of {of}, which was enough", probe.refused),
            of => format!("{} of {of}", probe.refused),
        },
    ]
}

fn word(kind: ProbeKind) -> &'static str {
    kind.as_str()
}

fn failing_page(leg: &LegReport, probe: &ProbeReport, page: &mut String) {
    if probe.failing.is_empty() {
        return;
    }
    line(page, &format!("Not as it must be: {}, {} clients, {}", word(probe.probe), leg.family, probe.server));
    for said in &probe.opening {
        line(page, &format!("    {said}"));
    }
    for case in &probe.failing {
        let source = case.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        line(page, &format!("  {} {}{source}", case.id, case.what));
        for said in &case.transcript {
            line(page, &format!("    {said}"));
        }
    }
    line(page, "");
}

fn paint(state: State) -> &'static str {
    match state {
        State::Proven => GREEN,
        State::SafeUnproven => PLAIN,
        State::Inconclusive | State::NeverRun => YELLOW,
        State::Latent | State::Open => RED,
    }
}

/// Text in lines of at most [`WIDTH`] columns.
fn wrapped(page: &mut String, first: &str, rest: &str, text: &str) {
    let mut current = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && current.chars().count() + 1 + word.chars().count() > WIDTH {
            line(page, &current);
            rest.clone_into(&mut current);
            is_empty = true;
        }
        if !is_empty {
            current.push(' ');
        }
        // What a server said may hold anything.
        current.extend(word.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }));
        is_empty = false;
    }
    line(page, &current);
}

#[cfg(test)]
mod tests {
    use super::super::judge::Severity;
    use super::super::probe::Family;
    use super::super::report::CaseReport;
    use super::*;

    fn probe(kind: ProbeKind, identity: Option<&str>, answer: &'static str, refused: usize) -> ProbeReport {
        ProbeReport {
            route: None,
            probe: kind,
            server: "192.0.2.25:25".into(),
            source: (kind != ProbeKind::FrontDoor).then(|| "192.0.2.1".into()),
            identity: identity.map(Into::into),
            answer,
            why: None,
            refused,
            of: 70,
            cut_short: false,
            left: 0,
            undecided: Vec::new(),
            opening: vec!["S: 220 mail ESMTP Postfix".into()],
            failing: Vec::new(),
        }
    }

    fn report() -> Report {
        let mut naked = probe(ProbeKind::Naked, None, "accepts", 20);
        naked.failing = vec![CaseReport {
            id: "A01".into(),
            what: "relayed",
            source: Some("nmap 2".into()),
            transcript: vec!["C: RCPT TO:<a@b.example>".into(), "S: 250 ok".into()],
        }];
        let mut front = probe(ProbeKind::FrontDoor, Some("203.0.113.77"), "refuses", 69);
        front.undecided = vec!["A08".into()];
        let mut text = "it accepts mail to foreign domains from 192.0.2.1 (case A01) ".repeat(2);
        text.push_str("\u{1b}[2J");
        let leg = LegReport {
            family: Family::V4,
            state: State::Latent,
            summary: "it trusts".into(),
            gateway: Some("192.0.2.1".into()),
            believe: Some("203.0.113.77".into()),
            findings: vec![FindingReport { severity: Severity::High, text, mend: Some("mend it".into()) }],
            probes: vec![naked, front],
            sent: Vec::new(),
        };
        Report::new(vec![BackendReport {
            name: "exchange".into(),
            address: "192.0.2.25:25".into(),
            identity: "xclient",
            server: "Postfix, by its banner".into(),
            state: State::Latent,
            level: 1,
            legs: vec![leg],
            ask_again: None,
        }])
    }

    #[test]
    fn the_page() {
        let expected = "\
LATENT  exchange, IPv4 clients
  it trusts

exchange is 192.0.2.25:25 (Postfix, by its banner), told of clients by identity = \"xclient\".

IPv4 clients
  high      it accepts mail to foreign domains from 192.0.2.1 (case A01) it accepts mail to foreign domains
            from 192.0.2.1 (case A01) \u{fffd}[2J
            mend: mend it

  PROBE       TOLD          FROM       ANSWER   REFUSED
  naked       nobody        192.0.2.1  accepts  20 of 70
  front door  203.0.113.77  within     refuses  69 of 70
  front door: neither yes nor no to A08

  The mail server sees 192.0.2.1, the gateway. It should believe 203.0.113.77, whom it is told of.
  Evidence level 1: recipients were answered and taken back (RSET); nothing was sent.

Not as it must be: naked, IPv4 clients, 192.0.2.25:25
    S: 220 mail ESMTP Postfix
  A01 relayed (nmap 2)
    C: RCPT TO:<a@b.example>
    S: 250 ok

Trust was found that must not be. Mend it, then run `smtp-gateway selftest` again.
";
        assert_eq!(render(&report(), false), expected);
        assert!(render(&report(), true).starts_with("\u{1b}[1;31mLATENT\u{1b}[0m  exchange"));
        assert!(!brief(&report()).contains("A01 relayed"));
    }

    #[test]
    fn json_says_the_same() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["outcome"], "found");
        let leg = &json["backends"][0]["legs"][0];
        assert_eq!((&leg["state"], &leg["family"]), (&"latent".into(), &"IPv4".into()));
        assert_eq!(leg["findings"][0]["severity"], "high");
        assert_eq!(leg["probes"][1]["probe"], "front-door");
        assert_eq!(leg["probes"][0]["failing"][0]["transcript"][1], "S: 250 ok");
    }
}
