//! From a session's wish for a backend to a connection with one of its servers.

use std::io;
use std::sync::Arc;

use tracing::debug;

use crate::backend::{Attempts, BackendState, ChosenServer, Pool};
use crate::config::BackendTls;
use crate::policy::relay_guard::Hold;
use crate::session::{Connected, Output};
use crate::time::Millis;
use crate::time::clock::{now, wall_clock};

use super::backend_side::{BackendSide, Dialed};
use super::task::SessionTask;

impl SessionTask {
    /// Connects to a server that was not tried since the last [`Action::Dial`](crate::session::Action::Dial).
    pub(super) fn dial(&mut self) {
        let (pool, client, now) = (self.pool().clone(), self.session.client_addr(), now());
        let mut attempts = self.attempts.take().map_or_else(|| pool.attempts(now), |attempts| *attempts);
        self.chosen = None;
        let dialing = async move {
            let (stream, chosen) = pool.connect_for(client, &mut attempts).await?;
            Ok(Dialed { stream, chosen, attempts, since: now })
        };
        self.backend = BackendSide::dial(dialing);
    }

    /// Connects to another server than the one whose session was lost, or to the same if there is no other.
    pub(super) fn dial_instead(&mut self) {
        if let Some(lost) = &self.chosen {
            lost.server().ask_refresh();
            self.attempts = Some(Box::new(self.pool().attempts_behind(lost, now())));
        }
        self.dial();
    }

    /// Connects to the server that the session has, once more; its place stays taken.
    pub(super) fn dial_again(&mut self) {
        let Some(chosen) = self.chosen.take() else { return self.dial() };
        let (server, client, now) = (chosen.server().clone(), self.session.client_addr(), now());
        let attempts = self.attempts.take().map_or_else(|| self.pool().attempts(now), |attempts| *attempts);
        let dialing = async move {
            let stream = server.connect_for(client).await?;
            Ok(Dialed { stream, chosen, attempts, since: now })
        };
        self.backend = BackendSide::dial(dialing);
    }

    /// TLS with the server stands, or does not come about.
    pub(super) fn secured(&mut self, now: Millis, secured: io::Result<()>, out: &mut Output) {
        match secured {
            Ok(()) => {
                self.backend_tls = self.backend.tls_facts().map(Box::new);
                let verified = self.backend_tls.as_ref().is_some_and(|facts| facts.verified);
                self.session.backend_secured(now, verified, out);
            }
            Err(error) => self.session.backend_not_secured(now, error.to_string(), out),
        }
    }

    /// Lets go of the connection, and of the place at its server.
    pub(super) fn close_backend(&mut self) {
        self.backend = BackendSide::None;
        if let Some(chosen) = &mut self.chosen {
            chosen.leave();
        }
    }

    /// The backend that the session has, or is to have.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.worker.pools[self.session.place()]
    }

    /// The server that the session has, or had last; before it has one, any.
    pub(super) fn server(&self) -> &Arc<BackendState> {
        self.chosen.as_ref().map_or_else(|| self.pool().first(), ChosenServer::server)
    }

    /// Whom the log names: the server, or who is to choose one.
    pub(super) fn server_name(&self) -> &str {
        self.chosen.as_ref().map_or(&self.pool().name, |chosen| &chosen.server().name)
    }

    /// What the relay proof made of the server that the session has, or will get.
    pub(super) fn hold(&self) -> Hold {
        match (&self.chosen, &self.backend) {
            _ if !self.worker.heeds_hold => Hold::None,
            (None, _) | (_, BackendSide::None) => self.pool().hold(),
            (Some(chosen), _) => chosen.server().hold(),
        }
    }

    /// The same of each backend that the listener leads to, where there are several.
    pub(super) fn tell_holds(&mut self) {
        if self.worker.pools.len() > 1 {
            let heeds = self.worker.heeds_hold;
            let hold = |pool: &Arc<Pool>| if heeds { pool.hold() } else { Hold::None };
            self.session.set_holds(self.worker.pools.iter().map(hold));
        }
    }

    /// `dialed`: with whom, and how long it took, in milliseconds.
    pub(super) fn dialed(&mut self, now: Millis, dialed: io::Result<(ChosenServer, Attempts, u64)>, out: &mut Output) {
        let destination = match self.told.as_ref().and_then(|told| told.destination) {
            Some(destination) => Ok(destination),
            None if !self.worker.listener.ip().is_unspecified() => Ok(self.worker.listener),
            None => self.client.stream.local_addr(),
        };
        match dialed.and_then(|dialed| Ok((dialed, destination?))) {
            Ok(((chosen, attempts, took), destination)) => {
                let worker = &self.worker;
                let pool = &worker.pools[self.session.place()];
                worker.counters.connect_seconds.observe(took);
                let open_by = if !pool.has_several() {
                    None
                } else if pool.has_another(&attempts, now) {
                    Some(attempts.patience(now))
                } else {
                    chosen.server().is_found_down(now).then(|| attempts.last_patience(now))
                };
                let answers_by =
                    if pool.has_several() { attempts.last_patience(now) } else { pool.attempts(now).until() };
                let server = chosen.server();
                let connected = Connected {
                    destination,
                    ipv6_form: server.ipv6_form(),
                    open_by,
                    answers_by,
                    // Of interest only where TLS is not certain.
                    is_on_this_host: server.tls == BackendTls::Opportunistic && server.is_on_this_host(),
                };
                if pool.has_several() {
                    self.attempts = Some(Box::new(attempts));
                }
                self.chosen = Some(chosen);
                self.session.backend_connected(wall_clock(now), connected, out);
            }
            Err(error) => {
                debug!(session = self.id, %error, "dial failed");
                self.close_backend();
                self.worker.counters.dials_failed_total.increment();
                self.server().ask_refresh();
                self.session.backend_unreachable(now, out);
            }
        }
    }
}
