//! What a session lets others see of itself: its line in the roll, its dialog while somebody follows it, its line in the log.

use crate::observe::log::{self, SessionRecord};
use crate::observe::routes::RouteTally;
use crate::observe::trace::{self, Speaker};
use crate::session::End;
use crate::time::Millis;
use crate::time::clock::now;

use crate::tls::TlsFacts;

use super::closing::Closing;
use super::roll::SessionLine;
use super::task::SessionTask;
use super::worker::unregister;

impl SessionTask {
    /// Counts replies that are about to be sent, and tells whoever follows the client of them.
    pub(super) fn replied(&mut self, replies: &[u8]) {
        self.client.last_reply = self.worker.counters.count_replies(replies);
        let client = self.session.client_addr().ip();
        if trace::follows(client) {
            trace::tell(self.id, client, Speaker::Gateway, replies);
        }
    }

    /// Tells whoever follows the client that something happened.
    pub(super) fn note(&self, what: &str) {
        let client = self.session.client_addr().ip();
        if trace::follows(client) {
            trace::tell(self.id, client, Speaker::Event, what.as_bytes());
        }
    }

    /// Where what comes by this route is counted, if routes are.
    pub(super) fn tally(&self, place: Option<usize>) -> Option<&RouteTally> {
        self.worker.routes.get(place?).map(|tally| &**tally)
    }

    /// What it is doing.
    pub(super) fn line(&self, now: Millis) -> SessionLine {
        SessionLine {
            id: self.id,
            client: self.session.client_addr().ip(),
            peer: self.peer().ip(),
            helo: self.session.hello().map(str::to_owned),
            route: self.tally(self.session.route_taken().place()).map(|tally| tally.name().to_owned()),
            backend: self.server_name().to_owned(),
            state: if self.closing == Closing::No { self.session.state() } else { "ending" },
            age_ms: now.since(self.started),
            bytes_in: self.client.bytes_in,
            accepted: self.session.totals().accepted,
            last_reply: self.client.last_reply,
            tls: self.client_tls(),
            backend_tls: self.backend_tls.as_deref().copied(),
        }
    }

    fn client_tls(&self) -> Option<TlsFacts> {
        self.client.tls.as_ref().and_then(|channel| channel.facts())
    }
}

impl Drop for SessionTask {
    fn drop(&mut self) {
        unregister(self.id);
        let (counters, totals) = (&self.worker.counters, self.session.totals());
        let tally = self.tally(self.session.route_taken().place());
        let record = SessionRecord {
            id: self.id,
            client: self.session.client_addr(),
            peer: self.peer(),
            helo: self.session.hello(),
            route: tally.map(RouteTally::name),
            backend: self.server_name(),
            accepted: totals.accepted,
            rejected: totals.rejected,
            deferred: totals.deferred,
            relay_denied: totals.relay_denied,
            errors: totals.errors,
            bytes_in: self.client.bytes_in,
            duration_ms: now().since(self.started),
            end: self.session.end().map_or("gateway stopped", End::as_str),
            tls: self.client_tls().map(|facts| facts.to_string()),
            backend_tls: self.backend_tls.as_ref().map(|facts| facts.judged()),
        };
        counters.sessions_closed_total.increment();
        if let Some(tally) = tally {
            tally.sessions.increment();
        }
        counters.client_bytes_total.add(self.client.bytes_in);
        counters.session_seconds.observe(record.duration_ms);
        if record.is_empty() {
            counters.sessions_empty_total.increment();
        }
        if self.client.tls.is_none() && !self.session.end().is_some_and(End::is_fault_of_tls) {
            counters.clear_sessions_total.increment();
        }
        self.note(record.end);
        log::session_closed(&record);
    }
}
