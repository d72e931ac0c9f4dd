//! `status --watch` on a terminal: rates, backends and proofs, busiest sources, recent events; live, with keys to sort and to
//! ban. In a pipe `status --watch` prints pages instead.

mod draw;
mod model;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::control::{AskError, TOP_MAX, ask_ban, ask_events, ask_status, ask_top};

use super::bans::target;
use super::failure::Failure;
use model::{Asked, Model};

/// Between two looks at the gateway.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a ban from here lasts.
const BAN_LENGTH: Duration = Duration::from_secs(3600);

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    Quit,
    /// The selected source, confirmed.
    Ban,
}

/// Shows it until somebody presses `q`.
pub(super) fn watch(socket: &Path) -> Result<(), Failure> {
    // Who cannot ask at all hears so before the screen is taken.
    let mut model = Model::default();
    look(socket, &mut model)?;
    let mut terminal = ratatui::try_init().map_err(Failure::new)?;
    let watched = run(socket, &mut model, &mut terminal);
    ratatui::restore();
    watched.map_err(Failure::new)
}

fn run(socket: &Path, model: &mut Model, terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut next = Instant::now() + INTERVAL;
    loop {
        terminal.draw(|frame| draw::draw(frame, model))?;
        if event::poll(next.saturating_duration_since(Instant::now()))?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            match pressed(model, key) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(()),
                Wish::Ban => ban(socket, model),
            }
        }
        if Instant::now() >= next {
            next = Instant::now() + INTERVAL;
            // It may be restarted while somebody looks: what is known stays, with the error above it.
            model.error = look(socket, model).err().map(|error| error.to_string());
        }
    }
}

fn look(socket: &Path, model: &mut Model) -> Result<(), AskError> {
    let status = ask_status(socket)?;
    let sources = ask_top(socket, TOP_MAX)?.sources;
    let events = ask_events(socket, model.last_event())?.events;
    model.update(Instant::now(), status, sources, events);
    Ok(())
}

fn pressed(model: &mut Model, key: KeyEvent) -> Wish {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return Wish::Quit;
    }
    if let Asked::Ban(_) = model.asked {
        if key.code == KeyCode::Char('y') {
            return Wish::Ban;
        }
        model.asked = Asked::Nothing;
        return Wish::Nothing;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
        KeyCode::Char('s') => model.sort_next(),
        KeyCode::Char('j') | KeyCode::Down => model.select(1),
        KeyCode::Char('k') | KeyCode::Up => model.select(-1),
        KeyCode::Char('b') => model.ask_to_ban(),
        _ => {}
    }
    Wish::Nothing
}

fn ban(socket: &Path, model: &mut Model) {
    let Asked::Ban(address) = std::mem::take(&mut model.asked) else { return };
    let done = target(&address).and_then(|network| {
        ask_ban(socket, network, BAN_LENGTH, "banned by hand, from the live view").map_err(|error| error.to_string())
    });
    model.asked = Asked::Told(match done {
        Ok(ban) => format!("{} is banned for an hour", ban.address),
        Err(why) => why,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{TopSource, sample_status};

    fn key(character: char) -> KeyEvent {
        KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE)
    }

    #[test]
    fn a_ban_must_be_confirmed() {
        let mut model = Model::default();
        assert_eq!(pressed(&mut model, key('b')), Wish::Nothing);
        assert_eq!(model.asked, Asked::Nothing, "there is nobody to ban");
        let source = |address: &str, active| TopSource { address: address.into(), active, ..TopSource::default() };
        let sources = vec![source("192.0.2.1", 1), source("192.0.2.2", 5)];
        model.update(Instant::now(), sample_status(), sources, Vec::new());
        pressed(&mut model, key('b'));
        assert_eq!(model.asked, Asked::Ban("192.0.2.2".into()), "the busiest is selected first");
        assert_eq!(pressed(&mut model, key('n')), Wish::Nothing);
        assert_eq!(model.asked, Asked::Nothing);
        pressed(&mut model, key('j'));
        pressed(&mut model, key('b'));
        assert_eq!(model.asked, Asked::Ban("192.0.2.1".into()));
        assert_eq!(pressed(&mut model, key('y')), Wish::Ban);
        assert_eq!(pressed(&mut model, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    }
}
