//! Figures to tables.

use super::load::{Measured, Work};
use super::proxies::Kind;
use super::report::{Column, Report};

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

    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu_us
    }
}

/// Of sorted microseconds, in milliseconds.
fn percentile(sorted: &[u64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |&us| us as f64 / 1e3)
}

/// One figure of all rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    least: f64,
    pub(super) median: f64,
    most: f64,
}

impl Figures {
    /// From the least to the most, with so many decimals.
    pub(super) fn spread(self, decimals: usize) -> String {
        format!("{:.decimals$}–{:.decimals$}", self.least, self.most)
    }
}

/// There is a cell at least.
pub(super) fn figures(cells: &[Cell], figure: impl Fn(&Cell) -> f64) -> Figures {
    let mut figures: Vec<f64> = cells.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    Figures { least: figures[0], median: figures[figures.len() / 2], most: figures[figures.len() - 1] }
}

/// Those that the others are measured by, where they take part.
const MEASURES: [Kind; 5] = [Kind::Gateway, Kind::Haproxy, Kind::Nginx, Kind::Forwarder, Kind::Floor];

/// A table of medians, CPU beside its spread and its ratios to that of those whom everybody knows.
pub(super) fn report(report: &mut Report, work: &Work, rounds: usize, rows: &[(Kind, Vec<Cell>)]) {
    let what = if work.messages == 0 { "sessions without mail" } else { "messages" };
    let bulk = work.size >= 1 << 20;
    let pipelined = if work.pipelined { ", pipelined" } else { "" };
    let login = if work.login { ", after AUTH PLAIN" } else { "" };
    report.line(format_args!(
        "\n### {}\n\n{what} of {} bytes, {} a session, {} at once{pipelined}{login}; medians of {rounds} rounds of {}",
        work.name,
        work.size,
        work.messages,
        work.at_once,
        work.units()
    ));
    let cpu = |cell: &Cell| if bulk { cell.cpu_s_per_gb } else { cell.cpu_us };
    let measures: Vec<_> = rows.iter().filter(|(kind, _)| MEASURES.contains(kind)).collect();
    let resumes = rows.iter().flat_map(|(_, cells)| cells).any(|cell| cell.resumed > 0.0);
    let shown = rows.iter().map(|(kind, cells)| {
        let median = |figure: fn(&Cell) -> f64| figures(cells, figure).median;
        let cost = figures(cells, cpu);
        let mut row = vec![
            kind.name().to_owned(),
            format!("{:.0}", median(|cell| cell.rate)),
            format!("{:.2}", cost.median),
            cost.spread(if bulk { 2 } else { 1 }),
        ];
        row.extend(measures.iter().map(|(_, cells)| format!("{:.2}", cost.median / figures(cells, cpu).median)));
        row.extend([median(|cell| cell.p50_ms), median(|cell| cell.p99_ms)].map(|ms| format!("{ms:.2}")));
        row.extend(resumes.then(|| format!("{:.0} %", median(|cell| cell.resumed) * 100.0)));
        row
    });
    let unit = if bulk { "CPU s/GB" } else { "CPU µs each" };
    let mut columns = vec![Column::left("proxy")];
    columns.extend(["per s", unit, "spread"].map(Column::right));
    columns.extend(measures.iter().map(|(kind, _)| Column::right(format!("÷ {}", kind.name()))));
    columns.extend(["p50 ms", "p99 ms"].map(Column::right));
    columns.extend(resumes.then(|| Column::right("resumed")));
    report.table(&columns, &shown.collect::<Vec<_>>());
}

/// Memory a waiting session.
pub(super) fn report_idle(report: &mut Report, sessions: usize, kinds: &[Kind], rows: &[[f64; 2]]) {
    report.line(format_args!("\n### idle\n\n{sessions} sessions, KiB of the proxy's memory each"));
    let rows = kinds.iter().zip(rows).map(|(kind, row)| {
        let kib = row.map(|bytes| format!("{:.1}", bytes / 1024.0));
        [kind.name().to_owned()].into_iter().chain(kib).collect()
    });
    let columns = [Column::left("proxy"), Column::right("after EHLO"), Column::right("after RCPT")];
    report.table(&columns, &rows.collect::<Vec<_>>());
}
