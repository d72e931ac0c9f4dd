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

/// A table of medians, CPU beside its ratio to HAProxy's.
pub(super) fn print(work: &Work, rounds: usize, kinds: &[Kind], cells: &[Vec<Cell>]) {
    let what = if work.messages == 0 { "sessions without mail" } else { "messages" };
    let bulk = work.size >= 1 << 20;
    let pipelined = if work.pipelined { ", pipelined" } else { "" };
    println!(
        "\n{}: {what} of {} bytes, {} a session, {} at once{pipelined}; medians of {rounds} rounds of {}",
        work.name,
        work.size,
        work.messages,
        work.at_once,
        work.units()
    );
    let unit = if bulk { "CPU s/GB" } else { "CPU µs each" };
    println!("  {:<17} {:>10} {:>12} {:>11} {:>9} {:>9}", "proxy", "per s", unit, "÷ haproxy", "p50 ms", "p99 ms");
    let cpu = |cell: &Cell| if bulk { cell.cpu_s_per_gb } else { cell.cpu_us };
    let haproxy = kinds.iter().zip(cells).find(|(kind, _)| **kind == Kind::Haproxy);
    let haproxy = haproxy.map_or(f64::NAN, |(_, cells)| median(cells, cpu));
    for (kind, cells) in kinds.iter().zip(cells) {
        let cost = median(cells, cpu);
        println!(
            "  {:<17} {:>10.0} {:>12.2} {:>11.2} {:>9.2} {:>9.2}",
            kind.name(),
            median(cells, |cell| cell.rate),
            cost,
            cost / haproxy,
            median(cells, |cell| cell.p50_ms),
            median(cells, |cell| cell.p99_ms)
        );
        let resumed = median(cells, |cell| cell.resumed);
        if resumed > 0.0 {
            println!("  {:<17} {:>9.0} % of its sessions resumed", "", resumed * 100.0);
        }
    }
}

/// Memory a waiting session.
pub(super) fn print_idle(sessions: usize, kinds: &[Kind], rows: &[[f64; 2]]) {
    println!("\nidle: {sessions} sessions, KiB of the proxy's memory each");
    println!("  {:<17} {:>10} {:>10}", "proxy", "after EHLO", "after RCPT");
    for (kind, [after_ehlo, after_rcpt]) in kinds.iter().zip(rows) {
        println!("  {:<17} {:>10.1} {:>10.1}", kind.name(), after_ehlo / 1024.0, after_rcpt / 1024.0);
    }
}
