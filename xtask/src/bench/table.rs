//! Figures to a page.

use super::load::{Measured, Work};
use super::proxies::Kind;

/// One round of one work through one proxy.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// Messages (or sessions) a second.
    rate: f64,
    /// Microseconds of the proxy's CPU a message (or session).
    cpu_us: f64,
    /// Seconds of the proxy's CPU a GB of message.
    cpu_s_per_gb: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of all sessions, those whose TLS took an earlier one up.
    resumed: f64,
}

impl Cell {
    pub(super) fn new(work: &Work, mut measured: Measured, cpu_nanoseconds: u64) -> Self {
        let units = work.units() as f64;
        let cpu = cpu_nanoseconds as f64;
        measured.latencies.sort_unstable();
        Self {
            rate: units / measured.seconds,
            cpu_us: cpu / 1e3 / units,
            cpu_s_per_gb: cpu / (units * work.size as f64),
            p50_ms: percentile(&measured.latencies, 50),
            p99_ms: percentile(&measured.latencies, 99),
            resumed: measured.resumed as f64 / work.sessions as f64,
        }
    }
}

/// Of sorted microseconds, in milliseconds.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |&us| us as f64 / 1e3)
}

fn median(cells: &[Cell], figure: impl Fn(&Cell) -> f64) -> f64 {
    let mut figures: Vec<f64> = cells.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Those that the others are measured by, where they take part.
const MEASURES: [Kind; 4] = [Kind::Gateway, Kind::Haproxy, Kind::Nginx, Kind::Forwarder];

/// A table of medians, CPU beside its ratios to that of those whom everybody knows.
pub(super) fn print(work: &Work, rounds: usize, rows: &[(Kind, Vec<Cell>)]) {
    let what = if work.messages == 0 { "sessions without mail" } else { "messages" };
    let bulk = work.size >= 1 << 20;
    let pipelined = if work.pipelined { ", pipelined" } else { "" };
    let login = if work.login { ", after AUTH PLAIN" } else { "" };
    println!(
        "\n{}: {what} of {} bytes, {} a session, {} at once{pipelined}{login}; medians of {rounds} rounds of {}",
        work.name,
        work.size,
        work.messages,
        work.at_once,
        work.units()
    );
    let cpu = |cell: &Cell| if bulk { cell.cpu_s_per_gb } else { cell.cpu_us };
    let measures: Vec<_> = rows.iter().filter(|(kind, _)| MEASURES.contains(kind)).collect();
    let measures: Vec<_> = measures.iter().map(|(kind, cells)| (kind.name(), median(cells, cpu))).collect();
    let unit = if bulk { "CPU s/GB" } else { "CPU µs each" };
    print!("  {:<19} {:>8} {:>12}", "proxy", "per s", unit);
    for (name, _) in &measures {
        print!(" {:>11}", format!("÷ {name}"));
    }
    println!(" {:>9} {:>9}", "p50 ms", "p99 ms");
    for (kind, cells) in rows {
        let cost = median(cells, cpu);
        print!("  {:<19} {:>8.0} {cost:>12.2}", kind.name(), median(cells, |cell| cell.rate));
        for (_, measure) in &measures {
            print!(" {:>11.2}", cost / measure);
        }
        println!(" {:>9.2} {:>9.2}", median(cells, |cell| cell.p50_ms), median(cells, |cell| cell.p99_ms));
        let resumed = median(cells, |cell| cell.resumed);
        if resumed > 0.0 {
            println!("  {:<19} {:>7.0} % of its sessions resumed", "", resumed * 100.0);
        }
    }
}

/// Memory a waiting session.
pub(super) fn print_idle(sessions: usize, kinds: &[Kind], rows: &[[f64; 2]]) {
    println!("\nidle: {sessions} sessions, KiB of the proxy's memory each");
    println!("  {:<19} {:>10} {:>10}", "proxy", "after EHLO", "after RCPT");
    for (kind, [after_ehlo, after_rcpt]) in kinds.iter().zip(rows) {
        println!("  {:<19} {:>10.1} {:>10.1}", kind.name(), after_ehlo / 1024.0, after_rcpt / 1024.0);
    }
}
