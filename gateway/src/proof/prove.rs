//! Who proves: the backends, the listeners and the settings of one configuration, for any number of proofs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::accept::{Admission, FrontDoor, Parts};
use crate::backend::{BackendState, Pool};
use crate::config::{BackendTls, Config, HostPort};
use crate::identity::host::HostNetworks;
use crate::identity::names::Names as Dns;
use crate::identity::xclient::ClientName;
use crate::observe::counters::CounterSet;
use crate::verdicts::Verdicts;

use super::cases::Names;
use super::door::Door;
use super::plan::Probe;
use super::probe::{Family, ProbeKind, Problem};

/// For one reply. Servers that slow strangers down do it by seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The user that relayed mail would go to.
const FOREIGN_USER: &str = "relay-proof";

/// Proves backends of one configuration.
#[derive(Debug)]
pub struct Prover {
    config: Arc<Config>,
    backends: Vec<Arc<BackendState>>,
    /// Of each backend, by listener: whoever is proven is who is behind the door.
    doors: Vec<Vec<FrontDoor>>,
}

impl Prover {
    /// For the backends of this configuration, of which `backends` holds what is known. Must be made on the runtime it will
    /// prove on.
    pub fn new(config: Arc<Config>, backends: Vec<Arc<BackendState>>, names: &Dns) -> Self {
        // Sessions of a proof are neither counted nor admitted with those of clients.
        let counters = CounterSet::new(1);
        let admission = Arc::new(Admission::new(&config.limits, Arc::default()));
        // And what the strangers try that it plays bans nobody.
        let mut lenient = Config::clone(&config);
        lenient.bans.enabled = false;
        let verdicts = Arc::new(Verdicts::new(&lenient, &HostNetworks::default()));
        let parts = Parts {
            acceptor: None,
            config: &config,
            names,
            counters: &counters,
            verdicts: &verdicts,
            admission: &admission,
            // They outlive no proof.
            drain: &Arc::default(),
            record_messages: false,
        };
        let doors = |(server, state): (usize, &Arc<BackendState>)| {
            let pool = Arc::new(Pool::alone(state.clone(), config.timeouts.connect));
            (0..config.listeners.len()).map(|index| FrontDoor::new(&parts, index, server, pool.clone())).collect()
        };
        let doors = backends.iter().enumerate().map(doors).collect();
        Self { config, backends, doors }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The backends, in the configuration's order.
    pub fn backends(&self) -> &[Arc<BackendState>] {
        &self.backends
    }

    pub(super) fn door<'a>(&'a self, backend: usize, probe: &'a Probe, deadline: Instant) -> Door<'a> {
        let timeouts = &self.config.timeouts;
        let configured = &self.config.backends[backend];
        let is_own_door = matches!(probe.kind, ProbeKind::FrontDoor | ProbeKind::Hidden | ProbeKind::Outside);
        Door {
            probe,
            mode: configured.identity,
            tls: if is_own_door { BackendTls::Off } else { configured.tls },
            connector: self.backends[backend].connector(),
            hostname: &self.config.server.hostname,
            front: probe.listener.and_then(|listener| self.doors[backend].get(listener)),
            connect_timeout: timeouts.connect,
            reply_timeout: timeouts.reply.min(REPLY_TIMEOUT),
            deadline,
            client_name: ClientName::Unavailable,
            nobody: None,
            ipv6_form: self.backends[backend].ipv6_form(),
        }
    }

    /// What the cases' placeholders stand for.
    pub(super) fn names(&self, probe: &Probe) -> Names {
        let proof = &self.config.proof;
        let (local_user, local_domain) = match (&probe.bait, proof.local_user.rsplit_once('@')) {
            (Some(bait), _) => (bait.user.clone(), Some(bait.domain.clone())),
            (None, Some((user, domain))) => (user.to_owned(), Some(domain.to_owned())),
            (None, None) => (proof.local_user.clone(), self.config.relay.local_domains.first().map(str::to_owned)),
        };
        let ip = probe.server.ip();
        let outsider = probe.identity.filter(|ip| ip.is_ipv4()).map_or("203.0.113.5".to_owned(), |ip| ip.to_string());
        Names {
            foreign_domain: proof.foreign_domain.clone(),
            foreign_user: FOREIGN_USER.to_owned(),
            local_domain,
            local_user,
            host: self.config.server.hostname.clone(),
            ip: if ip.is_ipv6() { format!("IPv6:{ip}") } else { ip.to_string() },
            foreign_ip: outsider,
        }
    }

    /// The backend's addresses, the first of each family that this host can reach.
    ///
    /// # Errors
    /// It has none, or none that this host can reach.
    pub(super) async fn addresses(&self, address: &HostPort) -> Result<Vec<SocketAddr>, Problem> {
        let all: Vec<_> = match address {
            HostPort::Address(address) => return Ok(vec![*address]),
            HostPort::Name(name, port) => {
                let found = timeout(REPLY_TIMEOUT, lookup_host((name.as_str(), *port))).await;
                let found = found.map_err(|_| Problem::Other(format!("`{name}` is not resolved in time")))?;
                found.map_err(|error| Problem::Other(format!("`{name}` is not resolved: {error}")))?.collect()
            }
        };
        let mut reached: Vec<SocketAddr> = Vec::new();
        let mut last = format!("{address} has no address");
        for address in all {
            if reached.iter().any(|known| Family::of(known.ip()) == Family::of(address.ip())) {
                continue;
            }
            // One that cannot be reached is one that the gateway does not use either.
            match timeout(self.config.timeouts.connect, TcpStream::connect(address)).await {
                Ok(Ok(_)) => reached.push(address),
                Ok(Err(error)) => last = format!("cannot connect to {address}: {error}"),
                Err(_) => last = format!("cannot connect to {address}: no answer in time"),
            }
        }
        if reached.is_empty() { Err(Problem::Other(last)) } else { Ok(reached) }
    }
}
