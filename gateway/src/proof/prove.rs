//! A whole proof of one backend: look up, plan, put every probe, judge, report.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::accept::{Admission, FrontDoor, Parts};
use crate::backend::BackendState;
use crate::backend::recognise::recognise;
use crate::config::{BackendTls, Config, HostPort, Listener};
use crate::identity::names::Names as Dns;
use crate::observe::counters::CounterSet;
use crate::verdicts::Verdicts;

use super::answer::Outcome;
use super::audit;
use super::canary;
use super::cases::Names;
use super::door::Door;
use super::judge::{Finding, Leg, Verdict, judge};
use super::plan::{LegPlan, Probe, plan};
use super::probe::{Family, Greeting, ProbeKind, ProbeOutcome, ProbeResult, Problem};
use super::report::{About, BackendReport, Sent};
use super::run::{ProbeSettings, put};

/// For one reply. Servers that slow strangers down do it by seconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The user that relayed mail would go to.
const FOREIGN_USER: &str = "relay-proof";

/// Where a proof stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Cases tried.
    pub done: usize,
    /// Cases planned.
    pub total: usize,
    /// What is under way: `outsider, IPv4, A07`.
    pub what: String,
}

/// Whoever watches a proof.
pub type Watcher<'a> = dyn FnMut(&Progress) + Send + 'a;

/// Proves backends of one configuration.
#[derive(Debug)]
pub struct Prover {
    config: Arc<Config>,
    backends: Vec<Arc<BackendState>>,
    doors: Vec<FrontDoor>,
}

impl Prover {
    /// For the backends of this configuration, of which `backends` holds what is known. Must be made on the runtime it will
    /// prove on.
    pub fn new(config: Arc<Config>, backends: Vec<Arc<BackendState>>, names: &Dns) -> Self {
        // Sessions of a proof are neither counted nor admitted with those of clients.
        let counters = CounterSet::new(1);
        let admission = Arc::new(Admission::new(&config.limits));
        // And what the strangers try that it plays bans nobody.
        let mut lenient = Config::clone(&config);
        lenient.bans.enabled = false;
        let verdicts = Arc::new(Verdicts::new(&lenient));
        let parts = Parts {
            config: &config,
            names,
            counters: &counters,
            verdicts: &verdicts,
            admission: &admission,
            // They outlive no proof.
            drain: &Arc::default(),
            record_messages: false,
        };
        let listeners = config.listeners.iter().enumerate();
        let door =
            |(index, listener): (usize, &Listener)| FrontDoor::new(&parts, index, backends[listener.backend].clone());
        let doors = listeners.map(door).collect();
        Self { config, backends, doors }
    }

    /// The backends, in the configuration's order.
    pub fn backends(&self) -> &[Arc<BackendState>] {
        &self.backends
    }

    /// Proves the backend with this index. Ends within the configured deadline, give or take a reply.
    pub async fn prove(&self, backend: usize, watcher: &mut Watcher<'_>) -> BackendReport {
        let configured = &self.config.backends[backend];
        let deadline = Instant::now() + self.config.proof.deadline;
        let addresses = match self.addresses(&configured.address).await {
            Ok(addresses) => addresses,
            Err(why) => return self.unreachable(backend, &why),
        };
        let plans = plan(&self.config, backend, &addresses);
        let mut meter = ProgressMeter::new(&plans, watcher);
        let mut legs = Vec::new();
        for leg in &plans {
            legs.push(self.leg(backend, leg, deadline, &mut meter).await);
        }
        let greeting = legs.iter().flat_map(|(leg, ..)| &leg.probes).find(|p| !p.greeting.banner.is_empty());
        let greeting = greeting.map_or_else(Greeting::default, |probe| probe.greeting.clone());
        self.report(backend, &greeting, &legs)
    }

    async fn leg(
        &self,
        backend: usize,
        plan: &LegPlan,
        deadline: Instant,
        meter: &mut ProgressMeter<'_, '_>,
    ) -> (Leg, Verdict, Vec<Sent>) {
        let leg_is_ipv6 = plan.family == Family::V6 && self.config.backends[backend].identity.is_xclient();
        let mut probes = Vec::new();
        for probe in &plan.probes {
            // What does not depend on the client's family is asked once.
            if probe.kind == ProbeKind::Naked
                && let Some(known) = meter.naked.get(&probe.server)
            {
                probes.push(known.clone());
                continue;
            }
            let mut door = self.door(backend, probe, deadline);
            let names = self.names(probe);
            let settings =
                ProbeSettings { names: &names, level: self.config.proof.level, pause: self.config.proof.pause };
            let label = format!("{}, {}", probe.kind.as_str(), plan.family);
            let planned = meter.progress.done + probe.cases.len();
            let result = put(&mut door, &settings, &mut |id| meter.step(&label, id)).await;
            if probe.kind == ProbeKind::Outsider && leg_is_ipv6 && result.problem.is_none() {
                // Sessions write them so from now on; the front door, which is tried next, among them.
                self.backends[backend].set_ipv6_form(door.ipv6_form);
            }
            // Those that were not tried will not be.
            meter.progress.done = planned;
            if probe.kind == ProbeKind::Naked {
                meter.naked.insert(probe.server, result.clone());
            }
            probes.push(result);
        }
        let leaks = self.audit(backend, plan, &probes, deadline, meter).await;
        let sent = self.canaries(backend, plan, &probes, deadline).await;
        let leg = Leg { family: plan.family, identity: plan.identity, probes, leaks };
        let verdict = judge(&leg);
        (leg, verdict, sent)
    }

    /// From level 2 on: what else the gateway's address may do, where both it and a stranger get as far.
    async fn audit(
        &self,
        backend: usize,
        plan: &LegPlan,
        probes: &[ProbeResult],
        deadline: Instant,
        meter: &mut ProgressMeter<'_, '_>,
    ) -> Vec<Finding> {
        if self.config.proof.level < 2 {
            return Vec::new();
        }
        let mut rights = Vec::new();
        for kind in [ProbeKind::Naked, ProbeKind::Outsider] {
            let answered = probes.iter().find(|result| result.kind == kind && result.problem.is_none());
            let probe = plan.probes.iter().find(|probe| probe.kind == kind);
            let (Some(answered), Some(probe)) = (answered, probe) else { return Vec::new() };
            let accepted = answered.control_accept().is_some_and(|control| control.outcome == Outcome::Accepted);
            let names = self.names(probe);
            let Some(domain) = names.local_domain.filter(|_| accepted) else { return Vec::new() };
            meter.tell(&format!("{}, {}, audit", kind.as_str(), plan.family));
            let server = recognise(self.config.backends[backend].kind, &answered.greeting);
            let recipient = format!("{}@{domain}", names.local_user);
            let mut door = self.door(backend, probe, deadline);
            rights.push(audit::rights(&mut door, server.kind, &recipient).await);
        }
        match rights[..] {
            [naked, outsider] => audit::compare(naked, outsider),
            _ => Vec::new(),
        }
    }

    /// At level 3: a message to the canary by every way that relays.
    async fn canaries(&self, backend: usize, plan: &LegPlan, probes: &[ProbeResult], deadline: Instant) -> Vec<Sent> {
        let mut sent = Vec::new();
        let Some(canary) = self.config.proof.canary.as_ref().filter(|_| self.config.proof.level >= 3) else {
            return sent;
        };
        for (result, probe) in probes.iter().zip(&plan.probes) {
            let asks = matches!(probe.kind, ProbeKind::Naked | ProbeKind::Outsider | ProbeKind::FrontDoor);
            if asks && matches!(result.outcome(), ProbeOutcome::Accepts(_)) {
                sent.push(canary::send(&mut self.door(backend, probe, deadline), canary).await);
            }
        }
        sent
    }

    fn door<'a>(&'a self, backend: usize, probe: &'a Probe, deadline: Instant) -> Door<'a> {
        let timeouts = &self.config.timeouts;
        let configured = &self.config.backends[backend];
        let is_own_door = matches!(probe.kind, ProbeKind::FrontDoor | ProbeKind::Outside);
        Door {
            probe,
            mode: configured.identity,
            tls: if is_own_door { BackendTls::Off } else { configured.tls },
            hostname: &self.config.server.hostname,
            front: probe.listener.and_then(|listener| self.doors.get(listener)),
            connect_timeout: timeouts.connect,
            reply_timeout: timeouts.reply.min(REPLY_TIMEOUT),
            deadline,
            nobody: None,
            ipv6_form: self.backends[backend].ipv6_form(),
        }
    }

    /// What the cases' placeholders stand for.
    fn names(&self, probe: &Probe) -> Names {
        let proof = &self.config.proof;
        let (local_user, local_domain) = match proof.local_user.rsplit_once('@') {
            Some((user, domain)) => (user.to_owned(), Some(domain.to_owned())),
            None => (proof.local_user.clone(), self.config.relay.local_domains.first().map(str::to_owned)),
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
    async fn addresses(&self, address: &HostPort) -> Result<Vec<SocketAddr>, String> {
        let all: Vec<_> = match address {
            HostPort::Address(address) => return Ok(vec![*address]),
            HostPort::Name(name, port) => {
                let found = timeout(REPLY_TIMEOUT, lookup_host((name.as_str(), *port))).await;
                let found = found.map_err(|_| format!("`{name}` is not resolved in time"))?;
                found.map_err(|error| format!("`{name}` is not resolved: {error}"))?.collect()
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
        if reached.is_empty() { Err(last) } else { Ok(reached) }
    }

    /// A report without a single answer.
    fn unreachable(&self, backend: usize, why: &str) -> BackendReport {
        let server = SocketAddr::from(([0, 0, 0, 0], 25));
        let probes = [ProbeKind::Naked, ProbeKind::Outsider].map(|kind| ProbeResult {
            kind,
            server,
            source: None,
            identity: None,
            greeting: Greeting::default(),
            opening: Vec::new(),
            xclient_still_offered: false,
            cases: Vec::new(),
            cut_short: false,
            problem: Some(Problem::Other(why.to_owned())),
        });
        let leg = Leg { family: Family::V4, identity: true, probes: probes.to_vec(), leaks: Vec::new() };
        let verdict = judge(&leg);
        self.report(backend, &Greeting::default(), &[(leg, verdict, Vec::new())])
    }

    fn report(&self, backend: usize, greeting: &Greeting, legs: &[(Leg, Verdict, Vec<Sent>)]) -> BackendReport {
        let configured = &self.config.backends[backend];
        let server = recognise(configured.kind, greeting);
        let about = About {
            name: &configured.name,
            address: configured.address.to_string(),
            mode: configured.identity,
            server: &server,
            level: self.config.proof.level,
        };
        BackendReport::new(&about, legs)
    }
}

/// How far a proof has come, and what it need not ask again.
struct ProgressMeter<'a, 'w> {
    watcher: &'a mut Watcher<'w>,
    progress: Progress,
    naked: HashMap<SocketAddr, ProbeResult>,
}

impl<'a, 'w> ProgressMeter<'a, 'w> {
    fn new(plans: &[LegPlan], watcher: &'a mut Watcher<'w>) -> Self {
        let mut naked = Vec::new();
        let mut total = 0;
        for probe in plans.iter().flat_map(|plan| &plan.probes) {
            let known = probe.kind == ProbeKind::Naked && naked.contains(&probe.server);
            if probe.kind == ProbeKind::Naked {
                naked.push(probe.server);
            }
            total += if known { 0 } else { probe.cases.len() };
        }
        Self { watcher, progress: Progress { done: 0, total, what: String::new() }, naked: HashMap::new() }
    }

    fn tell(&mut self, what: &str) {
        what.clone_into(&mut self.progress.what);
        (self.watcher)(&self.progress);
    }

    fn step(&mut self, label: &str, id: &str) {
        self.progress.done += 1;
        self.tell(&format!("{label}, {id}"));
    }
}
