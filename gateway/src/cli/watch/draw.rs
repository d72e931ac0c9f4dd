//! The live view, drawn: everything fits into 80 columns and 24 lines, and uses what there is beyond.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, TableState};

use crate::control::{BackendStatus, ProofState, Severity, Status, TopSource, render_event_short};
use crate::observe::show::{printable, span};

use super::model::{Asked, History, Model};

/// Lines that problems may take, at most.
const PROBLEMS_MAX: usize = 3;
/// Lines that backends may take, at most.
const BACKENDS_MAX: usize = 6;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let Some(status) = &model.status else { return };
    let problems = problems(status, model.error.as_deref());
    let backends = status.backends.len().min(BACKENDS_MAX);
    let [head, troubles, rates, backends, rest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height(problems.len())),
        Constraint::Length(5),
        Constraint::Length(height(backends) + 1),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(status), head);
    frame.render_widget(Paragraph::new(Text::from(problems)), troubles);
    draw_rates(frame, model, rates);
    frame.render_widget(backend_table(&status.backends), backends);
    let [sources, events] = Layout::horizontal([Constraint::Length(44), Constraint::Min(20)]).areas(rest);
    draw_sources(frame, model, sources);
    draw_events(frame, model, events);
    frame.render_widget(keys(model), foot);
}

fn height(lines: usize) -> u16 {
    u16::try_from(lines).unwrap_or(u16::MAX)
}

fn title(status: &Status) -> Line<'static> {
    let Status { version, uptime_seconds, sessions, messages, xdp, .. } = status;
    Line::from(vec![
        Span::from(format!("smtp-gateway {}", printable(version))).bold(),
        Span::from(format!(
            "  up {}  {} sessions  {} messages  {} bans  kernel {}",
            span(*uptime_seconds),
            sessions.active,
            messages.accepted_total,
            xdp.bans,
            xdp.mode.as_str()
        )),
    ])
}

/// What needs the administrator, the worst first; as much as there is room for.
fn problems(status: &Status, error: Option<&str>) -> Vec<Line<'static>> {
    let mut lines: Vec<_> =
        error.map(|error| Line::from(format!("! {}", printable(error))).red()).into_iter().collect();
    let room = PROBLEMS_MAX - lines.len();
    for problem in status.problems.iter().take(room) {
        let line = Line::from(format!("! {}: {}", problem.severity.as_str(), printable(&problem.what)));
        lines.push(match problem.severity {
            Severity::Critical => line.red(),
            Severity::Warning => line.yellow(),
        });
    }
    if let more @ 1.. = status.problems.len().saturating_sub(room) {
        lines.pop();
        lines.push(Line::from(format!("! and {} more; `smtp-gateway status` has them all", more + 1)).yellow());
    }
    if lines.is_empty() {
        lines.push(Line::from("nothing needs you").green());
    }
    lines
}

fn draw_rates(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let columns = Layout::horizontal([Constraint::Fill(1); 3]).areas::<3>(area);
    let shown = [
        ("sessions", "now", &model.sessions),
        ("messages", "a minute", &model.messages),
        ("refusals", "a minute", &model.refusals),
    ];
    for (area, (name, unit, history)) in columns.into_iter().zip(shown) {
        draw_rate(frame, name, unit, history, area);
    }
}

fn draw_rate(frame: &mut Frame<'_>, name: &str, unit: &str, history: &History, area: Rect) {
    let block = Block::bordered().title(format!("{name}: {} {unit}", history.last()));
    let inside = block.inner(area);
    let values = history.latest(usize::from(inside.width));
    frame.render_widget(block, area);
    frame.render_widget(Sparkline::default().data(values).style(Style::new().cyan()), inside);
}

fn backend_table(backends: &[BackendStatus]) -> Table<'static> {
    let rows = backends.iter().take(BACKENDS_MAX).map(|backend| {
        let (health, colour) = if backend.healthy { ("healthy", Color::Green) } else { ("unhealthy", Color::Red) };
        let (proof, proof_colour) = match backend.proof.state {
            ProofState::Open => ("OPEN RELAY", Color::Red),
            ProofState::Latent => ("latent: trusts the gateway", Color::Yellow),
            ProofState::Proven => ("proven safe", Color::Green),
            ProofState::SafeUnproven => ("safe, unproven", Color::Green),
            ProofState::Inconclusive => ("inconclusive", Color::Yellow),
            ProofState::NeverRun => ("never run", Color::Reset),
        };
        Row::new([
            Span::from(printable(&backend.name).into_owned()),
            Span::from(backend.address.clone()),
            Span::from(backend.identity.clone()),
            Span::from(health).fg(colour),
            Span::from(proof).fg(proof_colour),
        ])
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(22),
        Constraint::Length(12),
        Constraint::Length(9),
        Constraint::Min(14),
    ];
    let head = Row::new(["BACKEND", "ADDRESS", "IDENTITY", "HEALTH", "RELAY PROOF"]).bold();
    Table::new(rows, widths).header(head)
}

fn draw_sources(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = model.sources.iter().map(|source| {
        let TopSource { address, active, packets, syn, dropped, .. } = source;
        Row::new([printable(address).into_owned(), short(*active), short(*packets), short(*syn), short(*dropped)])
    });
    let widths = [
        Constraint::Min(15),
        Constraint::Length(5),
        Constraint::Length(7),
        Constraint::Length(5),
        Constraint::Length(6),
    ];
    let block = Block::new().borders(Borders::TOP | Borders::RIGHT).title(format!("sources by {}", model.sort.word()));
    let table = Table::new(rows, widths)
        .header(Row::new(["SOURCE", "SESS", "PACKETS", "SYNS", "DROPS"]).bold())
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(block);
    let mut state = TableState::default().with_selected((!model.sources.is_empty()).then_some(model.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

/// So that it fits into a narrow column.
fn short(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{}k", count / 1000),
        10_000_000..10_000_000_000 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

fn draw_events(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let lines: Vec<_> = model.events.iter().rev().map(|event| Line::from(render_event_short(event))).collect();
    let block = Block::new().borders(Borders::TOP).title("events");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn keys(model: &Model) -> Line<'static> {
    match &model.asked {
        Asked::Nothing => Line::from("q quit   s sort   up/down select   b ban the selected source").dim(),
        Asked::Ban(address) => Line::from(format!("ban {} for an hour? y/n", printable(address))).yellow(),
        Asked::Told(text) => Line::from(printable(text).into_owned()).yellow(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::control::{Problem, sample_status};
    use crate::observe::events::{Event, EventKind};

    fn drawn(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    fn model() -> Model {
        let mut model = Model::default();
        let problem = |what: &str| Problem { severity: Severity::Critical, what: what.into(), mend: None };
        let status = Status { problems: vec![problem("OPEN RELAY \u{1b}[2J")], ..sample_status() };
        let source = |last, active| TopSource { address: format!("192.0.2.{last}"), active, ..TopSource::default() };
        let event =
            Event { number: 1, at_ms: 0, kind: EventKind::Ban, subject: "192.0.2.9".into(), text: "points".into() };
        let now = Instant::now();
        model.update(now, status.clone(), vec![source(1, 3), source(2, 123_456)], vec![event]);
        let mut later = status;
        later.messages.accepted_total += 10;
        model.update(now + Duration::from_secs(1), later, vec![source(1, 3), source(2, 123_456)], Vec::new());
        model
    }

    #[test]
    fn everything_fits_into_80_by_24() {
        let screen = drawn(&model(), 80, 24);
        for part in [
            "smtp-gateway 1.2.3",
            "! critical: OPEN RELAY \\u{1b}[2J",
            "sessions: 1 now",
            "messages: 600 a minute",
            "exchange",
            "unhealthy",
            "never run",
            "sources by sessions",
            "192.0.2.2",
            "123k",
            "ban  192.0.2.9  points",
            "q quit",
        ] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        assert!(!screen.contains('\u{1b}'));
    }

    #[test]
    fn no_screen_is_too_small() {
        for (width, height) in [(1, 1), (20, 5), (80, 10), (300, 100)] {
            drawn(&model(), width, height);
        }
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let mut model = model();
        let problem = |number: usize| Problem { severity: Severity::Warning, what: format!("no {number}"), mend: None };
        model.status.as_mut().unwrap().problems = (0..7).map(problem).collect();
        let screen = drawn(&model, 80, 24);
        assert!(screen.contains("no 1") && !screen.contains("no 2") && screen.contains("and 5 more"), "{screen}");
    }
}
