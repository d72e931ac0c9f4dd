//! One listener on one worker: from an accepted connection to a session, or to a refusal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tracing::debug;

use crate::backend::Pool;
use crate::config::{Config, ListenerTls};
use crate::drive::{Balancer, ClientTls, DrainState, Worker, serve_direct, serve_proxied};
use crate::identity::names::Names;
use crate::identity::{ClientAddr, PeerAddr};
use crate::observe::counters::CounterSet;
use crate::observe::refusals::RefusalCause;
use crate::observe::routes::RouteTallies;
use crate::session::Settings;
use crate::time::clock::now;
use crate::tls::Acceptor;
use crate::verdicts::Verdicts;

use super::admission::{Admission, Refusal, Share};

/// How long accepting pauses when the system has no more file descriptors or memory.
pub(super) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Held by every session; when all are gone, so is the worker.
pub(super) type Alive = mpsc::Sender<()>;

/// What a connection must pass.
#[derive(Debug, Clone)]
pub struct Gate {
    pub(super) worker: Arc<Worker>,
    pub(super) admission: Arc<Admission>,
    /// Not empty: only these, and only with a PROXY header.
    pub(super) proxy_protocol_from: Arc<[IpNet]>,
    /// Those of them whose connections are their own where they name nobody.
    pub(super) own_connections_from: Arc<[IpNet]>,
    pub(super) greet_delay: Duration,
    /// What clients see as the gateway's address, where it is not the listener's.
    pub(super) destination: Option<SocketAddr>,
}

/// What the gates of one configuration have in common.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Reverse DNS.
    pub names: &'a Names,
    /// One set a worker.
    pub counters: &'a CounterSet,
    /// Who is banned.
    pub verdicts: &'a Arc<Verdicts>,
    /// What begins clients' TLS; none where no certificate is there, and for the relay proof, which is in this process.
    pub acceptor: Option<&'a Acceptor>,
    /// Who is in.
    pub admission: &'a Arc<Admission>,
    /// What tells sessions to end.
    pub drain: &'a Arc<DrainState>,
    /// Whether envelopes are kept for the log.
    pub record_messages: bool,
}

/// What leads from one listener to its backend; shared by the gates of all workers, and by the sessions that came through them.
#[derive(Debug)]
pub struct Entry {
    settings: Arc<Settings>,
    pools: Box<[Arc<Pool>]>,
    routes: RouteTallies,
    tls: Option<ClientTls>,
    names: Names,
    address: SocketAddr,
    proxy_protocol_from: Arc<[IpNet]>,
    own_connections_from: Arc<[IpNet]>,
}

impl Entry {
    /// For the listener with this index in the configuration, which really listens on `address`. `pools` are the backends that
    /// it leads to by these settings.
    pub fn new(
        parts: &Parts<'_>,
        listener: usize,
        address: SocketAddr,
        settings: Settings,
        pools: Box<[Arc<Pool>]>,
    ) -> Self {
        let configured = &parts.config.listeners[listener];
        let routes = match pools.len() {
            1 => RouteTallies::default(),
            _ => parts.counters.routes().open(parts.config.routes.iter().map(|route| &*route.name)),
        };
        Self {
            settings: Arc::new(settings),
            pools,
            routes,
            tls: parts.acceptor.and_then(|acceptor| client_tls(parts, listener, acceptor)),
            names: parts.names.clone(),
            address,
            proxy_protocol_from: configured.proxy_protocol_from.as_slice().into(),
            own_connections_from: configured.own_connections_from.as_slice().into(),
        }
    }

    /// Whether a gate or a session still holds what is in here.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.settings) > 1
    }
}

fn client_tls(parts: &Parts<'_>, listener: usize, acceptor: &Acceptor) -> Option<ClientTls> {
    let config = parts.config;
    let implicit = match config.listeners[listener].tls {
        ListenerTls::Off => return None,
        ListenerTls::StartTls => false,
        ListenerTls::Implicit => true,
    };
    Some(ClientTls {
        acceptor: acceptor.clone(),
        implicit,
        not_offered_to: config.tls.not_offered_to.as_slice().into(),
        handshakes: parts.admission.handshakes().clone(),
    })
}

impl Gate {
    /// For connections of one listener on the worker with this index. `heeds_hold`: whether what the relay proof made of the
    /// backend holds for their sessions.
    pub fn new(parts: &Parts<'_>, entry: &Entry, worker: usize, heeds_hold: bool) -> Self {
        let Parts { config, names: _, counters, verdicts, admission, drain, acceptor: _, record_messages: _ } = parts;
        let Entry { settings, pools, routes, tls, names, address, proxy_protocol_from, own_connections_from } = entry;
        Self {
            worker: Arc::new(Worker {
                listener: *address,
                settings: settings.clone(),
                pools: pools.clone(),
                routes: routes.clone(),
                tls: tls.clone(),
                names: names.clone(),
                verdicts: (*verdicts).clone(),
                counters: counters.of(worker),
                drain: (*drain).clone(),
                shortage: admission.shortage().clone(),
                log_mailboxes: config.log.mailboxes,
                heeds_hold,
            }),
            admission: (*admission).clone(),
            proxy_protocol_from: proxy_protocol_from.clone(),
            own_connections_from: own_connections_from.clone(),
            greet_delay: config.server.greet_delay,
            destination: None,
        }
    }

    /// A connection that was accepted; `alive` is kept as long as its session lasts.
    pub(super) fn open(&self, stream: TcpStream, peer: PeerAddr, alive: &Alive) {
        let Self { worker, admission, proxy_protocol_from, own_connections_from, greet_delay, destination } = self;
        let proxied = !proxy_protocol_from.is_empty();
        if proxied && !proxy_protocol_from.iter().any(|network| network.contains(&peer.ip())) {
            worker.turned_away(RefusalCause::UnlistedBalancer, peer.ip());
            debug!(%peer, "not in proxy_protocol_from, closed unread");
            return;
        }
        if !proxied && worker.verdicts.refuses(peer.ip(), now()) {
            return self.refuse(&stream, peer, Refusal::Banned);
        }
        let slot = match admission.slot(proxied.then_some(peer)) {
            Ok(slot) => slot,
            Err(refusal) => return self.refuse(&stream, peer, refusal),
        };
        let (worker, delay, alive) = (worker.clone(), *greet_delay, alive.clone());
        if proxied {
            let gate = self.clone();
            let admit = move |client: ClientAddr, stream: &TcpStream| {
                gate.admit(client).map_err(|refusal| gate.refuse(stream, peer, refusal)).ok()
            };
            let speaks_for_itself = own_connections_from.iter().any(|network| network.contains(&peer.ip()));
            let balancer = Balancer { peer, speaks_for_itself };
            tokio::spawn(serve_proxied(worker, stream, balancer, delay, admit, (slot, alive)));
            return;
        }
        match admission.share(ClientAddr::direct(peer), false) {
            Ok(share) => serve_direct(worker, stream, peer, *destination, delay, (slot, share, alive)),
            Err(refusal) => {
                // Before the client hears of it, and tries again.
                drop(slot);
                self.refuse(&stream, peer, refusal);
            }
        }
    }

    /// A client that a load balancer has named.
    fn admit(&self, client: ClientAddr) -> Result<Share, Refusal> {
        if self.worker.verdicts.refuses(client.ip(), now()) {
            return Err(Refusal::Banned);
        }
        self.admission.share(client, true)
    }

    fn refuse(&self, stream: &TcpStream, peer: PeerAddr, refusal: Refusal) {
        self.worker.turned_away(refusal.cause(), peer.ip());
        debug!(%peer, ?refusal, "connection refused");
        // Whether it arrives is the client's concern.
        let _ = stream.try_write(refusal.reply());
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Slot;
    use super::*;

    /// It stands beside the session, in the one piece of memory that its task has; that is a multiple of 128 octets.
    #[test]
    fn what_a_session_holds_is_small() {
        assert!(size_of::<(Slot, Share, Alive)>() <= 56);
    }
}
