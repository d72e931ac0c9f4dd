//! `cargo xtask bench --growth`: whether a message costs the same when much else is there: sessions that wait, bans, local
//! domains, workers. Each row is a gateway of its own that differs from the first in one thing; all of them are up at once,
//! and measured in turn.
//!
//! It runs in a network namespace of its own, for 50,000 sessions want as many ports. Where the limit of open files cannot be
//! raised, as many sessions wait as it allows.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::{output, target, visible};

use super::load::{Client, Work};
use super::one_round;
use super::proxies::{Kind, Programs, Proxy, Shape, free_address};
use super::report::{Column, Report};
use super::stream::Security;
use super::table::{Cell, figures};

/// That the namespace is there already; the rounds follow.
pub(super) const INSIDE: &str = "--inside";

const USAGE: &str = "\
usage: cargo xtask bench --growth [--rounds N]
";

const WORK: Work =
    Work { name: "one", at_once: 8, sessions: 2000, messages: 1, size: 4 << 10, pipelined: false, login: false };
/// Sessions that wait in every gateway but those that are about them.
const FEW: usize = 10;
const SESSIONS: [usize; 3] = [1000, 10_000, 50_000];
/// Two a session, and those that have nothing to do with sessions.
const OPEN_FILES: u64 = 2 * 50_000 + OTHER_FILES;
const OTHER_FILES: u64 = 1000;

/// One gateway.
struct Row {
    name: String,
    shape: Shape,
    /// Sessions that wait after EHLO.
    sessions: usize,
    bans: u32,
}

/// `most`: sessions that a gateway can have.
fn rows(most: usize) -> Vec<Row> {
    let row = |name: String, shape, sessions, bans| Row { name, shape, sessions, bans };
    let plain = Shape::default();
    let mut rows = vec![row(format!("2 workers, {FEW} sessions, no bans, 1 local domain"), plain, FEW, 0)];
    let mut sessions = SESSIONS.map(|sessions| sessions.min(most)).to_vec();
    sessions.dedup();
    rows.extend(sessions.into_iter().map(|sessions| row(format!("{sessions} sessions"), plain, sessions, 0)));
    rows.extend([1000, 100_000].map(|bans| row(format!("{bans} bans"), plain, FEW, bans)));
    rows.push(row("10000 local domains".to_owned(), Shape { local_domains: 10_000, ..plain }, FEW, 0));
    rows.push(row("1 worker".to_owned(), Shape { workers: 1, ..plain }, FEW, 0));
    rows
}

/// `cargo xtask bench --growth`.
pub(super) fn run(arguments: &[String]) -> Result<(), String> {
    let (is_inside, rounds) = match arguments {
        [] => (false, "9"),
        [flag, rounds] if flag == "--rounds" => (false, rounds.as_str()),
        [flag, rounds] if flag == INSIDE => (true, rounds.as_str()),
        _ => return Err(USAGE.to_owned()),
    };
    let rounds: usize = rounds.parse().ok().filter(|rounds| *rounds > 0).ok_or(USAGE)?;
    if !is_inside {
        visible(Command::new("cargo").args(["build", "--release", "-p", "smtp-gateway"]))?;
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut inside = Command::new("unshare");
        return visible(inside.arg("--net").arg(this).args(["bench", "--growth", INSIDE, &rounds.to_string()]));
    }
    output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535").map_err(|error| format!("ports: {error}"))?;
    let most = raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(measure(rounds, most))
}

/// Raises the limit of open files as far as may be, and says how many sessions a gateway can then have.
fn raise_open_files() -> Result<usize, String> {
    let enough = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    if setrlimit(Resource::Nofile, enough).is_ok() {
        return Ok(SESSIONS[SESSIONS.len() - 1]);
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .map_err(|error| format!("open files: {error}"))?;
    let files = limit.maximum.unwrap_or(OPEN_FILES);
    let most = files.saturating_sub(OTHER_FILES) / 2;
    eprintln!("no more than {files} files may be open, so no more than {most} sessions wait");
    usize::try_from(most).map_err(|_| "too many open files".to_owned())
}

async fn measure(rounds: usize, most: usize) -> Result<(), String> {
    let rows = rows(most);
    let mut report = Report::begin(&Programs::default(), &[Kind::Gateway]);
    let mut gateways = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", row.name);
        let folder = target().join(format!("bench/growth-{number}"));
        let address = free_address().map_err(|error| failed(&error))?;
        let sink = free_address().map_err(|error| failed(&error))?;
        let proxy = Proxy::gateway(&row.shape, &folder, address, sink)?;
        ban(&folder.join("control.sock"), row.bans)?;
        let mut waiting = Vec::with_capacity(row.sessions);
        for number in 0..row.sessions {
            let client = async {
                let mut client = Client::open(address, &Security::None, number).await?;
                client.ask(b"EHLO client.example\r\n", b"2").await?;
                std::io::Result::Ok(client)
            };
            waiting.push(client.await.map_err(|error| failed(&format!("session {number}: {error}")))?);
        }
        gateways.push((proxy, waiting));
    }
    let mut cells: Vec<Vec<Cell>> = vec![Vec::new(); rows.len()];
    for round in 0..=rounds {
        for number in 0..rows.len() {
            // Another row first in every round, so that none is always measured in another's wake.
            let number = (number + round) % rows.len();
            let cell = one_round(&WORK, &gateways[number].0, &Security::None).await;
            let cell = cell.map_err(|error| format!("{}: {error}", rows[number].name))?;
            // The first warms caches and pools.
            if round > 0 {
                cells[number].push(cell);
            }
        }
    }
    report.line(format_args!(
        "\n## What a message costs when there is more of something\n\n{} sessions of one message of {} bytes, {} at once; \
         medians of {rounds} interleaved rounds. Rows say in what they differ from the first.",
        WORK.sessions, WORK.size, WORK.at_once
    ));
    let costs: Vec<_> = cells.iter().map(|cells| figures(cells, Cell::cpu_us)).collect();
    let shown = rows.iter().zip(&costs).map(|(row, cost)| {
        let ratio = cost.median / costs[0].median;
        vec![row.name.clone(), format!("{:.1}", cost.median), cost.spread(1), format!("{ratio:.2}")]
    });
    let columns = [Column::left("gateway"), Column::right("CPU µs"), Column::right("spread"), Column::right("÷ first")];
    report.table(&columns, &shown.collect::<Vec<_>>());
    report.end("report-growth.md")
}

/// Bans so many addresses that nobody comes from.
fn ban(control: &Path, bans: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", control.display());
    let mut request = String::new();
    for number in 0..bans {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number);
        request.clear();
        let _ = writeln!(request, r#"{{"verb":"ban","network":"{address}/32","seconds":86400,"reason":"bench"}}"#);
        let mut stream = UnixStream::connect(control).map_err(failed)?;
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        if !answer.contains(&address.to_string()) {
            return Err(format!("ban {address}: {answer}"));
        }
    }
    Ok(())
}
