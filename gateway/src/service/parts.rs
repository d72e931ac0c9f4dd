//! What is made of a configuration, at the start and again at every reload: reverse DNS, the schedule of proofs, and listeners
//! with gates.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::accept::{BoundListener, Entry, Gate, Listener, Parts, Workers};
use crate::config::Config;
use crate::identity::host::HostNetworks;
use crate::identity::names::Names;
use crate::observe::counters::Counters;
use crate::observe::log;
use crate::policy::forwarders::risky_grants;
use crate::proof::{Prover, Schedule};
use crate::route::Routes;
use crate::session::Settings;

use super::backends::Backends;
use super::logins::exposed_passwords;
use super::view::View;

/// What of the configuration is good only as long as the networks around are as they should be, a sentence each.
pub(crate) fn risks(config: &Config) -> Vec<String> {
    let host = HostNetworks::read();
    let mut risks = risky_grants(&config.relay.allowed_networks, &host.own, &host.routers);
    risks.extend(exposed_passwords(config));
    risks
}

/// Reverse DNS as the configuration has it; without it names are unavailable.
pub(super) fn spawn_names(config: &Config, told: &mut Vec<String>) -> Names {
    let (names, problem) = Names::spawn(&config.dns);
    told.extend(problem);
    names
}

/// When these backends are proven. Where port 0 was asked for, the prover is told the port that the kernel chose.
pub(super) fn schedule(
    config: &Config,
    addresses: &[SocketAddr],
    backends: &Backends,
    names: &Names,
    counters: Arc<Counters>,
) -> Schedule {
    let mut config = config.clone();
    for (listener, address) in config.listeners.iter_mut().zip(addresses) {
        listener.address = *address;
    }
    let config = Arc::new(config);
    Schedule::new(Prover::new(config.clone(), backends.states(), names), &config, counters)
}

/// The listeners of a configuration, in its order: those that are there already get other gates, the others begin to accept.
/// Those that it does not name close.
pub(super) fn place(
    config: &Config,
    view: &View,
    names: &Names,
    backends: &Backends,
    workers: &Workers,
    (mut old, mut bound): (Vec<Listener>, Vec<BoundListener>),
) -> Vec<Listener> {
    let acceptor = view.acceptor();
    let parts = Parts {
        config,
        acceptor: acceptor.as_ref(),
        names,
        counters: &view.counters,
        verdicts: &view.verdicts,
        admission: &view.admission,
        drain: workers.drain_state(),
        record_messages: log::records_messages(),
    };
    let gate = |entry: &Entry, worker| Gate::new(&parts, entry, worker, true);
    let mut listeners = Vec::new();
    for (index, configured) in config.listeners.iter().enumerate() {
        let entry = |address| {
            let settings = Settings::new(config, index, parts.record_messages);
            let pools = Routes::new(config, index).pools().iter().map(|pool| backends.pool(*pool)).collect();
            Entry::new(&parts, index, address, settings, pools)
        };
        if let Some(at) = old.iter().position(|listener| listener.configured == configured.address) {
            let mut listener = old.swap_remove(at);
            let entry = entry(listener.address);
            view.retired.add(listener.change(entry, gate));
            listeners.push(listener);
        } else if let Some(at) = bound.iter().position(|bound| bound.configured == configured.address) {
            let bound = bound.swap_remove(at);
            let entry = entry(bound.address);
            listeners.push(Listener::open(workers, bound, entry, gate));
        }
    }
    old.into_iter().map(Listener::close).for_each(|entry| view.retired.add(entry));
    listeners
}
