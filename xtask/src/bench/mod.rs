//! `cargo xtask bench`: the gateway beside HAProxy, nginx and a bare forwarder, the same load against the same sink, in
//! one run. Figures are medians of interleaved rounds; what counts are their ratios, for they outlive the machine.
//!
//! CPU time is that of the proxy's own processes as the kernel accounts for it: the load and the sink do not count.
//! Nobody logs sessions here, for HAProxy and nginx do not by default.

mod backend;
mod floor;
mod growth;
mod helpers;
mod kernel;
mod load;
mod proxies;
mod report;
mod storm;
mod stream;
mod table;
mod tls;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::command::{target, visible};
use crate::peers;

use load::{Client, Work};
use proxies::{Kind, Programs, Proxy, free_address};
use report::Report;
use stream::Security;
use table::Cell;
use tls::{Certificate, Handshake, KeyKind};

const USAGE: &str = "\
usage: cargo xtask bench [--rounds N] [--only PROXY,…] [--work WORK,…] [--previous PROGRAM]
                         [--haproxy PROGRAM] [--nginx PROGRAM]
       cargo xtask bench --tls [--rounds N] [--only PROXY,…] [--work WORK,…] [--haproxy PROGRAM] [--nginx PROGRAM]
       cargo xtask bench --growth [--rounds N]
       cargo xtask bench --kernel [--rounds N]
       cargo xtask bench --storm [--rounds N] [--rate SYNS_PER_SECOND]

  PROXY    gateway, gateway-proxy-v2, haproxy, nginx, forwarder, and floor, which is what the system calls alone cost; with
           --previous also previous, previous-proxy-v2;
           with --tls gateway, gateway-tls-backend, haproxy, nginx, forwarder
  PROGRAM  of --previous: smtp-gateway as it was built before a change; its rows stand beside the new ones, interleaved.
           Of --haproxy and --nginx (with its mail module built in): instead of the distribution's
  WORK     one, twenty, pipelined, bulk, quit, idle; with --tls one, one-hybrid, one-resumed, auth, twenty, bulk, idle

  The tables are written to target/bench/report.md as well; those of --tls and --growth to report-tls.md and
  report-growth.md.
";

const WORKS: [Work; 5] = [
    Work { name: "one", at_once: 64, sessions: 4000, messages: 1, size: 4 << 10, pipelined: false, login: false },
    Work { name: "twenty", at_once: 64, sessions: 400, messages: 20, size: 4 << 10, pipelined: false, login: false },
    Work { name: "pipelined", at_once: 64, sessions: 600, messages: 20, size: 4 << 10, pipelined: true, login: false },
    Work { name: "bulk", at_once: 8, sessions: 32, messages: 1, size: 10 << 20, pipelined: false, login: false },
    Work { name: "quit", at_once: 256, sessions: 10_000, messages: 0, size: 0, pipelined: false, login: false },
];

/// Sessions that wait, for the memory of one.
const IDLE_SESSIONS: usize = 5000;

/// A round takes a second or two; one that takes this long has stalled.
const ROUND_TIMEOUT: Duration = Duration::from_secs(20);

struct Plan {
    rounds: usize,
    kinds: Vec<Kind>,
    works: Vec<String>,
    programs: Programs,
    /// Clients come inside TLS.
    tls: bool,
}

/// `cargo xtask bench`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    if let [flag, listen, backend, tls @ ..] = arguments
        && flag == "--forward"
    {
        return forward(listen, backend, tls);
    }
    if let [flag, listen, backend] = arguments
        && flag == "--floor"
    {
        return floor::run(address(listen)?, address(backend)?).map_err(|error| error.to_string());
    }
    if let [flag, rest @ ..] = arguments
        && flag == "--growth"
    {
        return growth::run(rest);
    }
    if let [flag, listen, identity, tls @ ..] = arguments
        && flag == "--backend"
    {
        return backend(listen, identity, tls);
    }
    if let [flag, rest @ ..] = arguments
        && flag == "--tls"
    {
        return Plan { tls: true, ..Plan::parse(rest, &Kind::TLS)? }.run();
    }
    if let [flag, rest @ ..] = arguments
        && flag == "--kernel"
    {
        return kernel::run(rest);
    }
    if let [flag, rest @ ..] = arguments
        && flag == "--storm"
    {
        return storm::run(rest);
    }
    Plan::parse(arguments, &Kind::ALL)?.run()
}

/// The forwarder, as a process of its own; `tls` is certificate and key, or nothing.
fn forward(listen: &str, backend: &str, tls: &[String]) -> Result<(), String> {
    let (listen, backend) = (address(listen)?, address(backend)?);
    let done = match server_config(tls)? {
        Some(config) => helpers::forward_tls(listen, backend, config),
        None => helpers::forward(listen, backend),
    };
    done.map_err(|error| error.to_string())
}

/// The mail server, likewise.
fn backend(listen: &str, identity: &str, tls: &[String]) -> Result<(), String> {
    let served = backend::serve(address(listen)?, identity == "proxy-v2", server_config(tls)?);
    served.map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("no address: {text}"))
}

fn server_config(tls: &[String]) -> Result<Option<Arc<ServerConfig>>, String> {
    match tls {
        [certificate, key] => Certificate::server(certificate.as_ref(), key.as_ref()).map(Some),
        _ => Ok(None),
    }
}

impl Plan {
    fn parse(arguments: &[String], kinds: &[Kind]) -> Result<Self, String> {
        let mut plan =
            Self { rounds: 5, kinds: kinds.to_vec(), works: Vec::new(), programs: Programs::default(), tls: false };
        let mut only = None;
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match argument.as_str() {
                "--rounds" => plan.rounds = value.parse().ok().filter(|rounds| *rounds > 0).ok_or(USAGE)?,
                "--only" => only = Some(value),
                "--previous" => plan.programs.previous = Some(value.into()),
                "--haproxy" => plan.programs.haproxy = Some(value.into()),
                "--nginx" => plan.programs.nginx = Some(value.into()),
                "--work" => plan.works = value.split(',').map(str::to_owned).collect(),
                _ => return Err(USAGE.to_owned()),
            }
        }
        // An earlier build stands right behind the new one.
        if plan.programs.previous.is_some() {
            plan.kinds.splice(2..2, Kind::PREVIOUS);
        }
        if let Some(only) = only {
            plan.kinds.retain(|kind| only.split(',').any(|name| name == kind.name()));
        }
        let inside = tls::WORKS.iter().map(|(work, _)| work.name);
        let names: Vec<_> = WORKS.iter().map(|work| work.name).chain(inside).chain(["idle"]).collect();
        if plan.kinds.is_empty() || !plan.works.iter().all(|name| names.contains(&name.as_str())) {
            return Err(USAGE.to_owned());
        }
        Ok(plan)
    }

    fn wants(&self, work: &str) -> bool {
        self.works.is_empty() || self.works.iter().any(|name| name == work)
    }

    fn run(&self) -> Result<(), String> {
        let distributed = [("haproxy", self.programs.haproxy.is_none()), ("nginx", self.programs.nginx.is_none())];
        for (peer, _) in distributed.into_iter().filter(|(_, is_distributed)| *is_distributed) {
            if self.kinds.iter().any(|kind| kind.name() == peer) {
                peers::provide_one(peer)?;
            }
        }
        visible(Command::new("cargo").args(["build", "--release", "-p", "smtp-gateway"]))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let mut report = Report::begin(&self.programs, &self.kinds);
        if !self.tls {
            runtime.block_on(self.measure(&mut report, None))?;
            return report.end("report.md");
        }
        report.line(format_args!("- {}", tls::libraries(&self.programs)));
        for kind in KeyKind::ALL {
            let certificate = Certificate::make(kind, &tls::folder())?;
            report.line(format_args!("\n## Certificate: {}\n", kind.name()));
            runtime.block_on(self.measure(&mut report, Some(&certificate)))?;
        }
        report.end("report-tls.md")
    }

    /// Every work through every proxy; with a `certificate`, inside TLS.
    async fn measure(&self, report: &mut Report, certificate: Option<&Certificate>) -> Result<(), String> {
        let proxies = self.start(certificate).await?;
        let securities = self.securities(certificate, Handshake::Classical)?;
        if certificate.is_some() {
            // With all that both sides know.
            let hybrid = self.securities(certificate, Handshake::Hybrid)?;
            for (proxy, security) in proxies.iter().zip(&hybrid) {
                let agreed = ready(proxy, security).await.map_err(|error| failed("TLS", proxy, &error))?;
                report.line(format_args!("- {}: {agreed}", proxy.kind.name()));
            }
        }
        let in_clear = WORKS.iter().map(|work| (work, Handshake::Classical));
        let inside = tls::WORKS.iter().map(|(work, handshake)| (work, *handshake));
        let works: Vec<_> = if certificate.is_some() { inside.collect() } else { in_clear.collect() };
        for (work, handshake) in works.into_iter().filter(|(work, _)| self.wants(work.name)) {
            let securities = self.securities(certificate, handshake)?;
            let able = proxies.iter().zip(&securities).filter(|(proxy, _)| !work.login || proxy.submission.is_some());
            let mut rows: Vec<_> = able.map(|(proxy, security)| (proxy, security, Vec::new())).collect();
            for round in 0..=self.rounds {
                for (proxy, security, cells) in &mut rows {
                    let cell = one_round(work, proxy, security).await;
                    let cell = cell.map_err(|error| failed(work.name, proxy, &error))?;
                    // The first warms caches and pools, and brings tickets.
                    if round > 0 {
                        cells.push(cell);
                    }
                }
            }
            let rows: Vec<_> = rows.into_iter().map(|(proxy, _, cells)| (proxy.kind, cells)).collect();
            if !rows.is_empty() {
                table::report(report, work, self.rounds, &rows);
            }
        }
        if self.wants("idle") {
            let mut rows = Vec::new();
            for (proxy, security) in proxies.iter().zip(&securities) {
                rows.push(idle_memory(proxy, security).await.map_err(|error| failed("idle", proxy, &error))?);
            }
            table::report_idle(report, IDLE_SESSIONS, &self.kinds, &rows);
        }
        Ok(())
    }

    async fn start(&self, certificate: Option<&Certificate>) -> Result<Vec<Proxy>, String> {
        let folder = target().join("bench");
        let mut proxies = Vec::new();
        for &kind in &self.kinds {
            let sink = free_address().map_err(|error| error.to_string())?;
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
            let auth_http = listener.local_addr().map_err(|error| error.to_string())?;
            tokio::spawn(helpers::answer_auth_http(listener, sink));
            proxies.push(Proxy::start(kind, &folder, sink, auth_http, &self.programs, certificate)?);
        }
        Ok(proxies)
    }

    /// How each proxy is spoken to.
    fn securities(&self, certificate: Option<&Certificate>, handshake: Handshake) -> Result<Vec<Security>, String> {
        let security = |kind: &Kind| certificate.map_or(Ok(Security::None), |tls| tls.security(*kind, handshake));
        self.kinds.iter().map(security).collect()
    }
}

fn failed(work: &str, proxy: &Proxy, error: &io::Error) -> String {
    format!("{work} through {}: {error}", proxy.kind.name())
}

/// What TLS is agreed upon with it. Where users can log in, waits until they are told so: the gateway has to ask the mail
/// server first.
async fn ready(proxy: &Proxy, security: &Security) -> io::Result<String> {
    if let Some(submission) = proxy.submission {
        let offered = async {
            while !Client::open(submission, security, 0).await?.is_offered_auth().await? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            io::Result::Ok(())
        };
        tokio::time::timeout(ROUND_TIMEOUT, offered).await??;
    }
    Ok(Client::open(proxy.address, security, 0).await?.agreed())
}

async fn one_round(work: &Work, proxy: &Proxy, security: &Security) -> io::Result<Cell> {
    let before = usage::cpu_nanoseconds(proxy.pid())?;
    let server = proxy.submission.filter(|_| work.login).unwrap_or(proxy.address);
    let measured = tokio::time::timeout(ROUND_TIMEOUT, load::run(work, server, security)).await??;
    let cpu = usage::cpu_nanoseconds(proxy.pid())?.saturating_sub(before);
    Ok(Cell::new(work, measured, cpu))
}

/// Bytes a session after EHLO, and after RCPT.
async fn idle_memory(proxy: &Proxy, security: &Security) -> io::Result<[f64; 2]> {
    let before = usage::memory_bytes(proxy.pid())?;
    let mut clients = Vec::with_capacity(IDLE_SESSIONS);
    for number in 0..IDLE_SESSIONS {
        let mut client = Client::open(proxy.address, security, number).await?;
        client.ask(b"EHLO client.example\r\n", b"2").await?;
        clients.push(client);
    }
    let after_ehlo = usage::memory_bytes(proxy.pid())?;
    for client in &mut clients {
        client.ask(b"MAIL FROM:<sender@client.example>\r\n", b"2").await?;
        client.ask(b"RCPT TO:<user@example.com>\r\n", b"2").await?;
    }
    let after_rcpt = usage::memory_bytes(proxy.pid())?;
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / IDLE_SESSIONS as f64;
    Ok([each(after_ehlo), each(after_rcpt)])
}
