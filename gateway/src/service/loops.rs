//! Servers that are the gateway itself, as far as they can be found before it runs: by an address that only this machine knows as
//! its own, or by a name that is looked up without delay. The running gateway finds them at every health check.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::LeadsBack;
use crate::config::{Config, HostPort};

/// How long names are waited for, all together.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many names are looked up.
const NAMES_MAX: usize = 64;

/// A sentence for each.
pub(crate) fn loops(config: &Config) -> Vec<String> {
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.address).collect();
    // What SRV records name is not asked for here.
    let servers = config.backends.iter().enumerate().filter(|(_, server)| config.pools[server.pool].srv.is_none());
    let (found, answers) = channel();
    let mut places: Vec<(usize, Vec<SocketAddr>)> = Vec::new();
    let mut names = 0;
    for (index, server) in servers {
        match &server.address {
            HostPort::Address(address) => places.push((index, vec![*address])),
            HostPort::Name(name, port) if names < NAMES_MAX => {
                names += 1;
                let (place, found) = ((name.clone(), *port), found.clone());
                // That may take all of a resolver's time, and is not waited for then. Who has no address is no loop.
                thread::spawn(move || found.send((index, place.to_socket_addrs().into_iter().flatten().collect())));
            }
            HostPort::Name(..) => {}
        }
    }
    drop(found);
    let until = Instant::now() + PATIENCE;
    while let Ok(answer) = answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
        places.push(answer);
    }
    places.sort_unstable_by_key(|(index, _)| *index);
    let sentence = |(index, found): (usize, Vec<SocketAddr>)| {
        let server = &config.backends[index];
        Some(format!("backend `{}`: {}", server.name, LeadsBack::find(&server.address, &found, &listeners)?))
    };
    places.into_iter().filter_map(sentence).collect()
}
