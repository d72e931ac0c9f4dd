//! `status` as text.

use std::fmt::{self, Write as _};

use crate::kernel::Mode;
use crate::observe::show::{BOLD, PLAIN, RED, printable, span};
use crate::observe::table::Table;
use crate::time::clock::since_1970;

use super::certificates::days;
use super::routes;
use super::{
    BackendStatus, CertificateStatus, LoginStatus, Problem, ProofState, ProofStatus, RefusedDomainStatus, Status,
    XdpStatus,
};

/// A page for a terminal (`colour`) or a file.
pub fn render(status: &Status, colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    head(status, &mut page);
    totals(status, &mut page);
    kernel(&status.xdp, &mut page);
    refused_domains(&status.refused_domains, &mut page);
    listeners(status, &mut page);
    backends(&status.backends, &mut page);
    routes(status, &mut page);
    page.text
}

/// A page that is being written.
struct Page {
    text: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, text: fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = writeln!(self.text, "{text}");
    }

    /// What begins and ends alarming text.
    fn red(&self) -> (&'static str, &'static str) {
        if self.colour { (RED, PLAIN) } else { ("", "") }
    }

    /// An empty line, and a table.
    fn table<const N: usize>(&mut self, table: &Table<N>) {
        self.line(format_args!(""));
        for row in table.lines() {
            self.line(format_args!("{row}"));
        }
    }
}

/// Who it is, what is wrong, and by which configuration it runs.
fn head(status: &Status, page: &mut Page) {
    let Status { version, uptime_seconds, problems, config, .. } = status;
    let (bold, plain) = if page.colour { (BOLD, PLAIN) } else { ("", "") };
    page.line(format_args!("{bold}smtp-gateway {version}{plain}, up {}", span(*uptime_seconds)));
    let (red, plain) = page.red();
    for Problem { severity, what, mend } in problems {
        let mend = mend.as_ref().map(|mend| format!("; {}", printable(mend))).unwrap_or_default();
        page.line(format_args!("{red}! {}: {}{plain}{mend}", severity.as_str(), printable(what)));
    }
    if let Some(file) = &config.file {
        let age = span(since_1970().as_secs().saturating_sub(config.loaded_at));
        page.line(format_args!("config     {}, read {age} ago, digest {}", printable(file), printable(&config.digest)));
    }
}

/// What it has done since its start.
fn totals(status: &Status, page: &mut Page) {
    let Status { sessions, messages, refusals_total, proofs, .. } = status;
    page.line(format_args!(
        "sessions   {} active, {} accepted, {} refused",
        sessions.active, sessions.accepted_total, sessions.refused_total
    ));
    page.line(format_args!(
        "messages   {} accepted, {} rejected, {} deferred",
        messages.accepted_total, messages.rejected_total, messages.deferred_total
    ));
    for (name, text) in status.tls.lines() {
        page.line(format_args!("{name:<10} {text}"));
    }
    if let Some(logins) = status.logins.line() {
        page.line(format_args!("logins     {logins}"));
    }
    let refused = refusals_total.iter().filter(|(_, count)| **count > 0);
    let refused: Vec<_> = refused.map(|(cause, count)| format!("{count} {}", printable(cause))).collect();
    if !refused.is_empty() {
        page.line(format_args!("refusals   {}", refused.join(", ")));
    }
    page.line(format_args!(
        "proofs     {} run, {} found trust, {} inconclusive",
        proofs.run_total, proofs.found_total, proofs.inconclusive_total
    ));
}

fn kernel(xdp: &XdpStatus, page: &mut Page) {
    match xdp.mode {
        Mode::Off => page.line(format_args!("kernel     off: connections are limited in userspace only")),
        Mode::Native | Mode::Generic => {
            let on = xdp.interfaces.iter().map(|i| format!("{} {}", printable(&i.name), i.mode.as_str()));
            let monitor = if xdp.monitor_only { ", drops nothing (monitor only)" } else { "" };
            page.line(format_args!("kernel     {}{monitor}", on.collect::<Vec<_>>().join(", ")));
            let dropped: u64 = xdp.dropped_total.values().sum();
            page.line(format_args!(
                "           {} packets, {} dropped; {} SYNs, {} lost before accept; {} sources",
                xdp.packets_total, dropped, xdp.syn_total, xdp.lost_before_accept_total, xdp.tracked_sources
            ));
        }
    }
    if let Some(problem) = &xdp.problem {
        let (red, plain) = page.red();
        page.line(format_args!("  {red}! {}{plain}", printable(problem)));
    }
    page.line(format_args!("bans       {}", xdp.bans));
}

fn refused_domains(domains: &[RefusedDomainStatus], page: &mut Page) {
    if domains.is_empty() {
        return;
    }
    let shown = domains.iter().map(|domain| format!("{}, {}×", printable(&domain.domain), domain.refused_total));
    page.line(format_args!("refused    {}", shown.collect::<Vec<_>>().join("; ")));
    page.line(format_args!("           is one of these domains yours? then add it to relay.local_domains"));
}

fn listeners(status: &Status, page: &mut Page) {
    let rows = status.listeners.iter().map(|listener| {
        let from = if listener.proxy_protocol { "load balancers (PROXY header)" } else { "clients" };
        [listener.address.to_string(), from.to_owned(), listener.tls.clone(), listener.backend.clone()]
    });
    page.table(&Table::new(["LISTENER", "TAKES", "TLS", "BACKEND"], rows));
    if !status.certificates.is_empty() {
        let rows = status.certificates.iter().map(certificate);
        page.table(&Table::new(["CERTIFICATE", "NAMES", "KEY", "EXPIRES"], rows));
    }
}

/// Each with what is wrong with it below its row.
fn backends(backends: &[BackendStatus], page: &mut Page) {
    page.line(format_args!(""));
    let rows = backends.iter().map(|backend| {
        let health = match backend {
            BackendStatus { drained: true, .. } => "drained",
            BackendStatus { healthy: true, .. } => "healthy",
            _ => "unhealthy",
        };
        let proof = proof(&backend.proof);
        let (identity, tls) = (backend.identity.clone(), backend.tls.to_string());
        [backend.name.clone(), backend.address.clone(), identity, tls, health.into(), proof]
    });
    let table = Table::new(["BACKEND", "ADDRESS", "IDENTITY", "TLS", "HEALTH", "RELAY PROOF"], rows);
    let mut rows = table.lines();
    page.line(format_args!("{}", rows.next().unwrap_or_default()));
    for (row, backend) in rows.zip(backends) {
        let (red, plain) = if is_alarming(backend) { page.red() } else { ("", "") };
        page.line(format_args!("{red}{row}{plain}"));
        for wrong in backend.problem.iter().chain(&backend.proof.findings) {
            page.line(format_args!("  {red}! {}{plain}", printable(wrong)));
        }
        if let Some(LoginStatus { withheld, refused, .. }) = &backend.logins {
            for wrong in refused.iter() {
                page.line(format_args!("  {red}! {}{plain}", printable(wrong)));
            }
            for why in withheld.iter() {
                page.line(format_args!("  {}", printable(why)));
            }
        }
        match &*backend.identity {
            "none" => page.line(format_args!("  {red}! this backend does not learn who its clients are{plain}")),
            "trace-header" => page.line(format_args!(
                "  {red}! this backend learns who its clients are from headers alone: what it allows the gateway, it allows all of \
                 them{plain}"
            )),
            _ => {}
        }
    }
}

/// Where there are routes.
fn routes(status: &Status, page: &mut Page) {
    if status.routes.is_empty() {
        return;
    }
    let table = routes::table(&status.routes);
    let mut rows = table.lines();
    page.line(format_args!("\n{}", rows.next().unwrap_or_default()));
    for (row, route) in rows.zip(&status.routes) {
        let (red, plain) = if routes::is_alarming(route) { page.red() } else { ("", "") };
        page.line(format_args!("{red}{row}{plain}"));
    }
    if status.more_routes > 0 {
        page.line(format_args!("and {} more", status.more_routes));
    }
}

fn is_alarming(backend: &BackendStatus) -> bool {
    !backend.healthy
        || matches!(&*backend.identity, "none" | "trace-header")
        || matches!(backend.proof.state, ProofState::Open | ProofState::Latent)
}

fn certificate(status: &CertificateStatus) -> [String; 4] {
    let file = printable(&status.certificate).into_owned();
    match &status.in_use {
        Some(facts) => {
            [file, printable(&facts.names.join(", ")).into_owned(), facts.key_type.clone(), days(facts.days_left)]
        }
        None => [file, "none in use".to_owned(), String::new(), String::new()],
    }
}

/// The verdict, and how old it is.
fn proof(proof: &ProofStatus) -> String {
    let state = match proof.state {
        ProofState::Open => "OPEN RELAY",
        ProofState::Latent => "LATENT",
        ProofState::NeverRun => "never run",
        state => state.as_str(),
    };
    let now = since_1970().as_secs();
    match proof.checked_at {
        Some(checked_at) => format!("{state}, {} ago", span(now.saturating_sub(checked_at))),
        None => state.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::super::certificates::tests::certificate;
    use super::super::{
        BackendTlsStatus, ListenerStatus, MessageTotals, ProofTotals, RouteStatus, SessionTotals, Severity, TlsTotals,
    };
    use super::*;

    fn backend(name: &str, identity: &str, problem: Option<&str>) -> BackendStatus {
        BackendStatus {
            name: name.into(),
            address: "192.0.2.25:25".into(),
            healthy: problem.is_none(),
            drained: false,
            problem: problem.map(Into::into),
            identity: identity.into(),
            tls: BackendTlsStatus::default(),
            logins: None,
            dialect: None,
            proof: ProofStatus { state: ProofState::NeverRun, checked_at: None, findings: Vec::new() },
        }
    }

    pub(crate) fn status() -> Status {
        Status {
            version: "1.2.3".into(),
            process: 1,
            uptime_seconds: 3 * 3600 + 12 * 60,
            problems: Vec::new(),
            warnings: Vec::new(),
            config: crate::control::ConfigStatus::default(),
            listeners: vec![ListenerStatus {
                address: "[::]:25".parse().unwrap(),
                backend: "exchange".into(),
                proxy_protocol: false,
                tls: "starttls".into(),
            }],
            sessions: SessionTotals { active: 1, limit: 20_000, accepted_total: 22, refused_total: 3 },
            messages: MessageTotals { accepted_total: 4, rejected_total: 5, deferred_total: 6 },
            refusals_total: BTreeMap::from([("ban".to_owned(), 3), ("relay".to_owned(), 0)]),
            tls: TlsTotals { clear_sessions_total: 22, clear_messages_total: 4, ..TlsTotals::default() },
            logins: super::super::LoginTotals::default(),
            log_lines_lost_total: 0,
            proofs: ProofTotals { run_total: 7, found_total: 1, inconclusive_total: 2 },
            backends: vec![
                backend("exchange", "xclient", None),
                backend("old", "none", Some("greets with 554 \x1b[2Jgo away")),
            ],
            routes: Vec::new(),
            more_routes: 0,
            certificates: vec![certificate(89)],
            xdp: XdpStatus::off(),
            top_sources: Vec::new(),
            refused_domains: vec![RefusedDomainStatus {
                domain: "mail.example.com".into(),
                refused_total: 10,
                last_at: 0,
            }],
        }
    }

    #[test]
    fn the_page() {
        let expected = "\
smtp-gateway 1.2.3, up 3 h 12 min
sessions   1 active, 22 accepted, 3 refused
messages   4 accepted, 5 rejected, 6 deferred
clear text 22 sessions, 4 messages
refusals   3 ban
proofs     7 run, 1 found trust, 2 inconclusive
kernel     off: connections are limited in userspace only
bans       0
refused    mail.example.com, 10×
           is one of these domains yours? then add it to relay.local_domains

LISTENER  TAKES    TLS       BACKEND
[::]:25   clients  starttls  exchange

CERTIFICATE  NAMES                            KEY          EXPIRES
/etc/mx.pem  mx.example.com, mx2.example.com  ECDSA P-256  89 days left

BACKEND   ADDRESS        IDENTITY  TLS  HEALTH     RELAY PROOF
exchange  192.0.2.25:25  xclient   off  healthy    never run
old       192.0.2.25:25  none      off  unhealthy  never run
  ! greets with 554 \\u{1b}[2Jgo away
  ! this backend does not learn who its clients are
";
        assert_eq!(render(&status(), false), expected);
        assert!(render(&status(), true).contains("\x1b[31mold "));
    }

    #[test]
    fn routes_stand_below_where_there_are_some() {
        let route = |name: &str, healthy, hold: Option<&str>| RouteStatus {
            name: name.into(),
            matches: "customer.test".into(),
            backends: vec!["exchange".into(), "old".into()],
            servers: 2,
            healthy,
            hold: hold.map(Into::into),
            messages: MessageTotals { accepted_total: 7, rejected_total: 1, deferred_total: 2 },
        };
        let routes = vec![route("customers", 1, None), route("down", 0, None), route("none", 2, Some("defer"))];
        let status = Status { routes, more_routes: 3, ..status() };
        let expected = "
ROUTE      FOR            BACKEND        HEALTHY  HELD   MESSAGES  REJECTED, DEFERRED
customers  customer.test  exchange, old  1 of 2   no     7         1, 2
down       customer.test  exchange, old  0 of 2   no     7         1, 2
none       customer.test  exchange, old  2 of 2   defer  7         1, 2
and 3 more
";
        let page = render(&status, false);
        assert!(page.ends_with(expected), "{page}");
        let page = render(&status, true);
        let red: Vec<_> = page.lines().filter(|line| line.starts_with(RED)).collect();
        assert!(red.iter().any(|line| line.contains("down")) && red.iter().any(|line| line.contains("none")), "{page}");
        assert!(!red.iter().any(|line| line.contains("customers")), "{page}");
    }

    #[test]
    fn what_is_wrong_stands_on_top() {
        let mut status = status();
        status.problems = vec![Problem {
            severity: Severity::Critical,
            what: "OPEN RELAY: the backend exchange relays".into(),
            mend: Some("mend \u{202e}it".into()),
        }];
        let page = render(&status, false);
        let second = page.lines().nth(1).unwrap();
        assert_eq!(second, "! critical: OPEN RELAY: the backend exchange relays; mend \\u{202e}it");
    }

    #[test]
    fn an_identity_that_decides_nothing_is_not_to_be_overlooked() {
        for (identity, words) in [("none", "does not learn"), ("trace-header", "from headers alone")] {
            let mut status = status();
            status.backends = vec![backend("exchange", identity, None)];
            let page = render(&status, true);
            assert!(page.contains(words) && page.contains(RED), "{page}");
        }
    }

    #[test]
    fn an_open_relay_is_not_to_be_overlooked() {
        let mut status = status();
        let now = since_1970().as_secs();
        status.backends[0].proof =
            ProofStatus { state: ProofState::Open, checked_at: Some(now - 130), findings: vec!["it relays".into()] };
        let page = render(&status, true);
        assert!(page.contains("OPEN RELAY, 2 min 10 s ago"), "{page}");
        assert!(page.contains("  \x1b[31m! it relays\x1b[0m\n"), "{page}");
    }

    #[test]
    fn json_keeps_the_contract_and_comes_back() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(json["backends"][0]["proof"]["state"], "never-run");
        assert_eq!(json["xdp"]["mode"], "off");
        assert_eq!(json["sessions"]["accepted_total"], 22);
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
    }
}
