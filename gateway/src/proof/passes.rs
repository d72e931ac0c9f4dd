//! One proof under way: what is to be asked of a backend, what was heard, and what was learned of how to ask.
//!
//! The telling cases of every probe come first, then the rest. A slow server is asked the rest only as long as there is time
//! before the verdict is due; whoever has more time asks again for what is left.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::time::Instant;

use crate::backend::recognise::recognise;
use crate::config::Service;
use crate::identity::host::HostNetworks;
use crate::identity::xclient::ClientName;

use super::answer::Outcome;
use super::audit;
use super::canary;
use super::cases::{Case, is_telling, position};
use super::judge::{Finding, Leg, judge};
use super::login::unknown_login;
use super::pace::Pace;
use super::plan::{LegPlan, Probe, plan};
use super::probe::{Family, ProbeKind, ProbeOutcome, ProbeResult, Problem};
use super::progress::{Progress, Watcher};
use super::prove::Prover;
use super::report::{About, BackendReport, Sent};
use super::run::{ProbeSettings, put, puts_off_everybody};

/// The part of the deadline after which a verdict is due: two minutes of the default ten.
const VERDICT_SHARE: u32 = 5;

/// A proof of one backend, from its plan to its report.
#[derive(Debug)]
pub struct Proof<'p> {
    prover: &'p Prover,
    backend: usize,
    deadline: Instant,
    legs: Vec<PlannedLeg>,
    asked: Vec<Asked>,
    paces: HashMap<SocketAddr, Pace>,
    progress: Progress,
}

/// One address family's part.
#[derive(Debug)]
struct PlannedLeg {
    family: Family,
    identity: bool,
    /// Which of the questions belong to it. What does not depend on the client's family is asked once for all.
    asked: Vec<usize>,
    leaks: Vec<Finding>,
    sent: Vec<Sent>,
}

/// One probe, and how far it has come.
#[derive(Debug)]
struct Asked {
    probe: Probe,
    family: Family,
    result: ProbeResult,
    left: Vec<&'static Case>,
    /// The name that the server is told with the address, where it turns nameless clients away.
    name: ClientName,
}

impl Prover {
    /// Proves the backend with this index, up to a verdict. Ends within the configured deadline, give or take a reply.
    pub async fn prove(&self, backend: usize, watcher: &mut Watcher<'_>) -> BackendReport {
        let mut proof = self.begin(backend).await;
        proof.ask(watcher).await;
        proof.report()
    }

    /// Begins a proof of the backend with this index; nothing is asked yet.
    pub async fn begin(&self, backend: usize) -> Proof<'_> {
        let addresses = self.addresses(&self.config().backends[backend].address).await;
        let plans = addresses.map(|addresses| plan(self.config(), &HostNetworks::read(), backend, &addresses));
        Proof::new(self, backend, plans)
    }
}

impl<'p> Proof<'p> {
    /// By this plan; an error is why there is none.
    pub(super) fn new(prover: &'p Prover, backend: usize, plans: Result<Vec<LegPlan>, Problem>) -> Self {
        let deadline = Instant::now() + prover.config().proof.deadline;
        let (legs, asked) = match plans {
            Ok(plans) => lay_out(plans),
            Err(problem) => unreachable(problem),
        };
        let total = asked.iter().map(|asked| asked.left.len()).sum();
        let progress = Progress { done: 0, total, what: String::new() };
        Self { prover, backend, deadline, legs, asked, paces: HashMap::new(), progress }
    }

    /// Asks until a verdict is due, or all has been asked.
    pub async fn ask(&mut self, watcher: &mut Watcher<'_>) {
        let verdict_by = Instant::now() + self.prover.config().proof.deadline / VERDICT_SHARE;
        for index in 0..self.asked.len() {
            self.ask_telling(index, watcher).await;
        }
        let open = self.open();
        for (asked, &index) in open.iter().enumerate() {
            // What a slow server leaves of the time is shared out.
            let now = Instant::now();
            let probes = u32::try_from(open.len() - asked).unwrap_or(u32::MAX);
            let share = verdict_by.saturating_duration_since(now) / probes;
            self.ask_rest(index, now + share, watcher).await;
        }
        self.look_closer(watcher).await;
    }

    /// Asks what was left, until the deadline.
    pub async fn ask_what_is_left(&mut self, watcher: &mut Watcher<'_>) {
        for index in self.open() {
            self.ask_rest(index, self.deadline, watcher).await;
        }
    }

    /// Whether nothing is left to ask.
    pub fn is_complete(&self) -> bool {
        self.open().is_empty()
    }

    /// The probes that have cases left, and may get an answer to them.
    fn open(&self) -> Vec<usize> {
        let is_open = |asked: &Asked| {
            let ProbeResult { problem, cut_short, stopped, cases, .. } = &asked.result;
            let over = problem.is_some() || *cut_short || stopped.is_some() || puts_off_everybody(cases);
            !asked.left.is_empty() && !over
        };
        (0..self.asked.len()).filter(|&index| is_open(&self.asked[index])).collect()
    }

    async fn ask_telling(&mut self, index: usize, watcher: &mut Watcher<'_>) {
        self.put(index, is_telling, None, watcher).await;
        let config = self.prover.config();
        let name = ClientName::verified(&config.server.hostname);
        let asked = &mut self.asked[index];
        let is_told = matches!(asked.probe.kind, ProbeKind::Naked | ProbeKind::Outsider)
            && config.backends[self.backend].identity.is_xclient();
        if is_told && name != ClientName::Unavailable && asked.result.turns_nameless_away() {
            // The question was whether it relays, and whoever has a name is answered that.
            asked.begin_again(name);
            self.put(index, is_telling, None, watcher).await;
        }
    }

    async fn ask_rest(&mut self, index: usize, until: Instant, watcher: &mut Watcher<'_>) {
        self.put(index, |_| true, Some(until), watcher).await;
        let result = &mut self.asked[index].result;
        // The telling cases were answered; what came of the others takes nothing from that.
        result.stopped = result.problem.take().map(|problem| problem.to_string());
    }

    /// Puts the cases of one probe that are left and wanted.
    async fn put(
        &mut self,
        index: usize,
        wanted: impl Fn(&Case) -> bool,
        until: Option<Instant>,
        watcher: &mut Watcher<'_>,
    ) {
        let Self { prover, backend, deadline, asked, paces, progress, .. } = self;
        let asked = &mut asked[index];
        let (cases, later): (Vec<_>, Vec<_>) = asked.left.iter().copied().partition(|case| wanted(case));
        if cases.is_empty() {
            return;
        }
        let config = prover.config();
        let (level, pause) = (config.proof.level, config.proof.pause);
        let names = prover.names(&asked.probe);
        let settings = ProbeSettings { names: &names, level, pause, verdict_by: until };
        let label = format!("{}, {}", asked.probe.kind.as_str(), asked.family);
        let mut tick = |id: &str| {
            progress.done += 1;
            progress.what = format!("{label}, {id}");
            watcher(progress);
        };
        let pace = paces.entry(asked.probe.server).or_default();
        let mut door = prover.door(*backend, &asked.probe, *deadline);
        door.client_name = asked.name.clone();
        let left = put(&mut door, &settings, &cases, &mut asked.result, pace, &mut tick).await;
        if asked.probe.kind == ProbeKind::Outsider && asked.family == Family::V6 && asked.result.problem.is_none() {
            // Sessions write them so from now on; the front door, which is tried next, among them.
            prover.backends()[*backend].set_ipv6_form(door.ipv6_form);
        }
        asked.left = left.into_iter().chain(later).collect();
        asked.result.left = asked.left.len();
        asked.result.pace = pace.is_slow().then(|| pace.described());
        asked.result.cases.sort_by_key(|done| position(&done.id));
    }

    /// What is asked once the cases were: the audit, and the canary.
    async fn look_closer(&mut self, watcher: &mut Watcher<'_>) {
        for leg in 0..self.legs.len() {
            self.legs[leg].leaks = self.audit(leg, watcher).await;
            let login = self.try_login(leg, watcher).await;
            self.legs[leg].leaks.extend(login);
            self.legs[leg].sent = self.canaries(leg).await;
        }
    }

    /// From level 2 on: what else the gateway's address may do, where both it and a stranger get as far.
    async fn audit(&mut self, leg: usize, watcher: &mut Watcher<'_>) -> Vec<Finding> {
        let config = self.prover.config();
        if config.proof.level < 2 {
            return Vec::new();
        }
        let mut rights = Vec::new();
        for kind in [ProbeKind::Naked, ProbeKind::Outsider] {
            let of_kind = |index: &&usize| self.asked[**index].probe.kind == kind;
            let Some(&index) = self.legs[leg].asked.iter().find(of_kind) else { return Vec::new() };
            let Asked { probe, result, .. } = &self.asked[index];
            let accepted = result.control_accept().is_some_and(|control| control.outcome == Outcome::Accepted);
            let names = self.prover.names(probe);
            let Some(domain) = names.local_domain.filter(|_| accepted && result.problem.is_none()) else {
                return Vec::new();
            };
            self.progress.what = format!("{}, {}, audit", kind.as_str(), self.legs[leg].family);
            watcher(&self.progress);
            let server = recognise(config.backends[self.backend].kind, &result.greeting);
            let recipient = format!("{}@{domain}", names.local_user);
            let mut door = self.prover.door(self.backend, probe, self.deadline);
            rights.push(audit::rights(&mut door, server.kind, &recipient).await);
        }
        match rights[..] {
            [naked, outsider] => audit::compare(naked, outsider),
            _ => Vec::new(),
        }
    }

    /// Where users log in, and an account is named that does not exist: what becomes of a login as that.
    async fn try_login(&mut self, leg: usize, watcher: &mut Watcher<'_>) -> Option<Finding> {
        let config = self.prover.config();
        let account = config.proof.unknown_login.as_ref()?;
        let PlannedLeg { family, identity, asked: indices, .. } = &self.legs[leg];
        let mut probes = indices.iter().map(|&index| &self.asked[index].probe);
        let is_for_users = |probe: &Probe| {
            let listener = probe.listener.and_then(|listener| config.listeners.get(listener));
            listener.is_some_and(|listener| listener.service == Service::Submission)
        };
        if !probes.clone().any(is_for_users) {
            return None;
        }
        let kind = if *identity { ProbeKind::Outsider } else { ProbeKind::Naked };
        let probe = probes.find(|probe| probe.kind == kind)?;
        self.progress.what = format!("{}, {family}, login", kind.as_str());
        watcher(&self.progress);
        unknown_login(&mut self.prover.door(self.backend, probe, self.deadline), account).await
    }

    /// At level 3: a message to the canary by every way that relays.
    async fn canaries(&self, leg: usize) -> Vec<Sent> {
        let mut sent = Vec::new();
        let proof = &self.prover.config().proof;
        let Some(canary) = proof.canary.as_ref().filter(|_| proof.level >= 3) else { return sent };
        for &index in &self.legs[leg].asked {
            let Asked { probe, result, .. } = &self.asked[index];
            let asks = matches!(probe.kind, ProbeKind::Naked | ProbeKind::Outsider | ProbeKind::FrontDoor);
            if asks && matches!(result.outcome(), ProbeOutcome::Accepts(_)) {
                sent.push(canary::send(&mut self.prover.door(self.backend, probe, self.deadline), canary).await);
            }
        }
        sent
    }

    /// What has been found so far.
    pub fn report(&self) -> BackendReport {
        let configured = &self.prover.config().backends[self.backend];
        let greeted =
            self.asked.iter().map(|asked| &asked.result.greeting).find(|greeting| !greeting.banner.is_empty());
        // Who is too busy to greet the proof has greeted others.
        let known = || self.prover.backends()[self.backend].greeting();
        let server = recognise(configured.kind, &greeted.cloned().unwrap_or_else(known));
        let about = About {
            name: &configured.name,
            address: configured.address.to_string(),
            mode: configured.identity,
            server: &server,
            level: self.prover.config().proof.level,
        };
        let judged = self.legs.iter().map(|planned| {
            let probes = planned.asked.iter().map(|&index| self.asked[index].result.clone()).collect();
            let (family, identity, leaks) = (planned.family, planned.identity, planned.leaks.clone());
            let leg = Leg { family, identity, probes, leaks };
            let verdict = judge(&leg);
            (leg, verdict, planned.sent.clone())
        });
        BackendReport::new(&about, &judged.collect::<Vec<_>>())
    }
}

impl Asked {
    fn new(probe: Probe, family: Family) -> Self {
        let mut result = ProbeResult::new(probe.kind, probe.server, probe.identity);
        (result.forwarder, result.for_users) = (probe.forwarder, probe.for_users);
        result.route = probe.bait.as_ref().filter(|_| probe.listener.is_some()).map(|bait| bait.route.clone());
        let left = probe.cases.clone();
        Self { probe, family, result, left, name: ClientName::Unavailable }
    }

    /// From the beginning, with a name for the client. Who has none but its own address is then told that address.
    fn begin_again(&mut self, name: ClientName) {
        self.probe.identity = self.probe.identity.or(self.result.source);
        *self = Self { name, ..Self::new(self.probe.clone(), self.family) };
    }
}

fn lay_out(plans: Vec<LegPlan>) -> (Vec<PlannedLeg>, Vec<Asked>) {
    let mut asked: Vec<Asked> = Vec::new();
    let mut legs = Vec::new();
    for plan in plans {
        let mut own = Vec::new();
        for probe in plan.probes {
            let is_naked = probe.kind == ProbeKind::Naked;
            let known = asked.iter().position(|other| is_naked && other.probe == probe);
            own.push(known.unwrap_or(asked.len()));
            if known.is_none() {
                asked.push(Asked::new(probe, plan.family));
            }
        }
        let (family, identity) = (plan.family, plan.identity);
        legs.push(PlannedLeg { family, identity, asked: own, leaks: Vec::new(), sent: Vec::new() });
    }
    (legs, asked)
}

/// A proof without a single answer.
fn unreachable(problem: Problem) -> (Vec<PlannedLeg>, Vec<Asked>) {
    let server = SocketAddr::from(([0, 0, 0, 0], 25));
    let asked = [ProbeKind::Naked, ProbeKind::Outsider].map(|kind| {
        let probe = Probe {
            kind,
            server,
            identity: None,
            bind: None,
            listener: None,
            forwarder: None,
            for_users: false,
            bait: None,
            cases: Vec::new(),
        };
        let mut asked = Asked::new(probe, Family::V4);
        asked.result.problem = Some(problem.clone());
        asked
    });
    let leg = PlannedLeg { family: Family::V4, identity: true, asked: vec![0, 1], leaks: Vec::new(), sent: Vec::new() };
    (vec![leg], asked.into())
}
