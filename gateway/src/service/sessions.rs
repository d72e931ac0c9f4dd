//! What the running gateway says of its sessions, and how an administrator ends one.

use crate::control::{NotDone, SessionList, SessionStatus};
use crate::drive::{SessionLine, SessionQuery};
use crate::observe::events::{self, EventKind};

use super::secured::of_connection;
use super::view::View;

impl View {
    pub(super) fn session_list(&self, limit: usize) -> SessionList {
        let mut roll = self.caller.ask(SessionQuery::All { limit });
        let kept = limit.min(roll.lines.len());
        let more = roll.more + u64::try_from(roll.lines.len() - kept).unwrap_or(u64::MAX);
        SessionList { sessions: roll.lines.drain(..kept).map(session_status).collect(), more }
    }

    pub(super) fn end_session(&self, session: u64) -> Result<SessionStatus, NotDone> {
        let found = self.caller.ask(SessionQuery::End { session }).lines.pop();
        let line = found.ok_or_else(|| no_session(session))?;
        events::emit(EventKind::Gateway, line.client, format_args!("an administrator ended session {session}"));
        Ok(session_status(line))
    }
}

fn no_session(session: u64) -> NotDone {
    NotDone::new(format!("there is no session {session}; `sessions` lists those there are"))
}

fn session_status(line: SessionLine) -> SessionStatus {
    let SessionLine {
        id,
        client,
        peer,
        helo,
        route,
        backend,
        state,
        age_ms,
        bytes_in,
        accepted,
        last_reply,
        tls,
        backend_tls,
    } = line;
    SessionStatus {
        id,
        client: client.to_string(),
        peer: peer.to_string(),
        helo,
        route,
        backend,
        state: state.to_owned(),
        age_seconds: age_ms / 1000,
        bytes_in,
        accepted,
        last_reply,
        tls: tls.as_ref().map(of_connection),
        backend_tls: backend_tls.as_ref().map(of_connection),
    }
}
