//! What the control socket shows of a running gateway, and what it can have done.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use crate::accept::{Admission, Caller};
use crate::backend::Health;
use crate::backend::recognise::{Greeting, recognise};
use crate::config::{Config, ServerKind};
use crate::control::{
    Answers, BackendStatus, BanList, BanStatus, BannedBy, CertificateStatus, DialectStatus, DrainStatus, LogStatus,
    MessageTotals, NotDone, ProgramId, ProofStatus, ProofTotals, RefusedDomainStatus, ReloadAnswer, RenewAnswer,
    Renewal, SessionList, SessionStatus, SessionTotals, Status, Successor, TopList, TopSource, UpgradeAnswer,
    XdpStatus, find_problems, recent_refusals,
};
use crate::identity::Source;
use crate::identity::xclient::Ipv6Form;
use crate::kernel::{Mode, SourceAccount};
use crate::observe::counters::{CounterSet, MessageOutcome};
use crate::observe::declare::Label as _;
use crate::observe::events::{self, EventKind};
use crate::observe::log;
use crate::observe::refusals::{self, RefusalCause};
use crate::policy::bans::Cause;
use crate::policy::forwarders::{self, is_private};
use crate::policy::refused_domains::RefusedDomain;
use crate::proof::LastProof;
use crate::time::Millis;
use crate::time::clock::{now, since_1970};
use crate::tls::Acceptor;
use crate::verdicts::{BanView, Shown, Verdicts};

use super::backends::Backend;
use super::certificates;
use super::generation::Generation;
use super::journal::Journal;
use super::kernel_side::KernelSide;
use super::log_levels::LogLevels;
use super::logins;
use super::retired::Retired;
use super::secured;
use super::upgrades::Upgrades;

/// Sources that `status` shows.
const TOP_SOURCES: usize = 10;
/// Refused domains that it shows.
const REFUSED_DOMAINS: usize = 5;

/// Banned private addresses that it shows.
const PRIVATE_BANS: usize = 5;

/// What a status snapshot is made of.
#[derive(Debug)]
pub(super) struct View {
    pub(super) started: Instant,
    /// What was wrong at the start and still is.
    pub(super) warnings: Vec<String>,
    /// The configuration in force, and what was made of it.
    pub(super) generation: ArcSwap<Generation>,
    /// Reloads that are asked for.
    pub(super) reloads: mpsc::Sender<oneshot::Sender<ReloadAnswer>>,
    pub(super) counters: CounterSet,
    pub(super) verdicts: Arc<Verdicts>,
    /// What begins clients' TLS, and what watches its certificates.
    pub(super) acceptor: Mutex<Option<(Acceptor, JoinSet<()>)>>,
    pub(super) admission: Arc<Admission>,
    /// If something is attached.
    pub(super) kernel: Option<KernelSide>,
    /// Why it is not attached as it should be.
    pub(super) kernel_problem: Option<String>,
    /// Reaches every session.
    pub(super) caller: Caller,
    /// How much is logged.
    pub(super) log_levels: LogLevels,
    /// Whether it is on its way down.
    pub(super) draining: AtomicBool,
    /// What keeps bans, if there is a directory for it.
    pub(super) journal: Mutex<Option<Journal>>,
    /// What sessions of earlier configurations hold.
    pub(super) retired: Retired,
    pub(super) upgrades: Upgrades,
    /// Whether another process may write the journal now.
    pub(super) handing_over: AtomicBool,
}

/// The core's time as the world's.
#[derive(Debug, Clone, Copy)]
struct Calendar {
    now: Millis,
    unix_ms: u64,
}

impl Answers for View {
    fn status(&self) -> Status {
        let sources = self.kernel.as_ref().map(KernelSide::sources).unwrap_or_default();
        let tracked_sources = u64::try_from(sources.len()).unwrap_or(u64::MAX);
        let status = self.overview();
        Status {
            xdp: XdpStatus { tracked_sources, ..status.xdp },
            top_sources: self.busiest(sources, TOP_SOURCES),
            ..status
        }
    }

    fn ban(&self, network: IpNet, length: Duration, reason: &str) -> Result<BanStatus, NotDone> {
        let now = now();
        let ban = self.verdicts.ban(network, length, reason, now).map_err(NotDone::new)?;
        Ok(BanStatus { note: self.end_of_bans().map(str::to_owned), ..self.ban_status(Calendar::new(now), &ban) })
    }

    fn unban(&self, network: IpNet) -> Result<BanStatus, NotDone> {
        let now = now();
        // With the ban its count goes.
        let packets_dropped = self.kernel.as_ref().map_or(0, |kernel| kernel.dropped(network));
        let ban = self.verdicts.unban(network, now).map_err(NotDone::new)?;
        Ok(BanStatus { packets_dropped, ..self.ban_status(Calendar::new(now), &ban) })
    }

    fn bans(&self) -> BanList {
        self.newest_bans(usize::MAX)
    }

    fn reload(&self, program: Option<ProgramId>) -> ReloadAnswer {
        if program.is_some_and(|program| self.upgrades.are_wanted_by(program)) {
            return ReloadAnswer::Upgrade(UpgradeAnswer::own());
        }
        let (answer, answered) = oneshot::channel();
        let failed = || ReloadAnswer::Failed { why: "the gateway is going down".to_owned() };
        // On a thread that may wait. Who reloads has one at a time.
        match self.reloads.blocking_send(answer) {
            Ok(()) => answered.blocking_recv().unwrap_or_else(|_| failed()),
            Err(_) => failed(),
        }
    }

    fn upgrade(&self) -> UpgradeAnswer {
        self.upgrades.want()
    }

    fn hand_over(&self, to: Successor, version: u32) -> Result<(), (Successor, String)> {
        self.upgrades.candidate(to, version)
    }

    fn top(&self, limit: usize) -> TopList {
        let mode = self.kernel.as_ref().map_or(Mode::Off, KernelSide::mode);
        let sources = self.kernel.as_ref().map(KernelSide::sources).unwrap_or_default();
        TopList { mode, sources: self.busiest(sources, limit) }
    }

    fn sessions(&self, limit: usize) -> SessionList {
        self.session_list(limit)
    }

    fn kill(&self, session: u64) -> Result<SessionStatus, NotDone> {
        self.end_session(session)
    }

    fn log(&self, level: &str, length: Option<Duration>) -> Result<LogStatus, NotDone> {
        self.log_levels.set(level, length)
    }

    fn drain(&self, backend: &str, server: Option<&str>, draining: bool) -> Result<DrainStatus, NotDone> {
        let servers = self.generation().backends.drain(backend, server, draining)?;
        Ok(DrainStatus { servers })
    }

    fn renew(&self, renewal: &Renewal) -> Result<RenewAnswer, NotDone> {
        let none = || NotDone::new("the running gateway has no certificate in its configuration");
        let answer = certificates::hand_over(self.acceptor().ok_or_else(none)?.certificates(), renewal)?;
        if answer == RenewAnswer::Exchanged {
            events::emit(EventKind::Gateway, renewal.certificate.display(), "a renewed certificate is in use");
        }
        Ok(answer)
    }
}

impl View {
    /// What begins clients' TLS now.
    pub(super) fn acceptor(&self) -> Option<Acceptor> {
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        acceptor.as_ref().map(|(acceptor, _)| acceptor.clone())
    }

    /// What begins it from now on.
    pub(super) fn set_acceptor(&self, acceptor: Option<Acceptor>) {
        let acceptor = acceptor.map(watched);
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = acceptor;
    }

    /// The configuration in force.
    pub(super) fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Writes bans down, if they changed. For a thread that may wait.
    pub(super) fn keep_bans(&self, at_once: bool) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if self.handing_over.load(Ordering::Acquire) {
            return;
        }
        let times = (now(), since_1970());
        match &mut *journal {
            Some(journal) if at_once => journal.keep_now(&self.verdicts, times),
            Some(journal) => journal.keep(&self.verdicts, times),
            None => {}
        }
    }

    /// What ends bans before their time; `None`: nothing.
    fn end_of_bans(&self) -> Option<&'static str> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*journal, &self.kernel) {
            (Some(_), _) => None,
            (None, Some(_)) => Some(
                "a reboot ends it: there is no directory to keep it in; make /var/lib/smtp-gateway, or name one in `server.state`",
            ),
            (None, None) => Some(
                "it ends with the gateway: there is no directory to keep it in; make /var/lib/smtp-gateway, or name one in \
                 `server.state`",
            ),
        }
    }

    /// For the log, at the end.
    pub(super) fn tell_lost_bans(&self) {
        let bans = self.verdicts.count(now());
        if bans > 0
            && let Some(why) = self.end_of_bans()
        {
            warn!(bans, why, "bans are in force that will not be kept");
        }
    }

    /// What an administrator should know or mend.
    fn warnings(&self, generation: &Generation) -> Vec<String> {
        let mut warnings: Vec<_> = self.warnings.iter().chain(&generation.kept).cloned().collect();
        warnings.extend(self.admission.crowd().map(|(address, percent)| forwarders::crowd(address, percent)));
        warnings.extend(generation.srv_problems.get());
        let bans = self.verdicts.bans(now());
        let own_doing = bans.iter().filter(|ban| matches!(ban.cause, Cause::Offences(_)));
        let private = own_doing.filter(|ban| is_private(ban.network.addr())).take(PRIVATE_BANS);
        warnings.extend(private.map(|ban| forwarders::banned(&Shown(ban.network))));
        warnings.extend(refusals::misfits());
        warnings
    }

    /// Another configuration is in force.
    pub(super) fn set_generation(&self, generation: Generation) {
        self.generation.store(Arc::new(generation));
    }

    /// What is known without asking for each source of packets.
    pub(super) fn overview(&self) -> Status {
        let generation = self.generation();
        let totals = self.counters.totals();
        let bans = u64::try_from(self.verdicts.count(now())).unwrap_or(u64::MAX);
        let kernel = self.kernel.as_ref();
        let xdp = kernel.map_or_else(XdpStatus::off, |kernel| kernel.status(totals.connections_total));
        let kernel_problems: Vec<_> = self.kernel_problem.iter().chain(&xdp.problem).map(String::as_str).collect();
        let refusals =
            RefusalCause::ALL.iter().map(|cause| (cause.as_str().to_owned(), totals.refusals_total.of(*cause)));
        let (routes, more_routes) = self.routes(&generation);
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            problems: Vec::new(),
            warnings: self.warnings(&generation),
            config: generation.origin.status(),
            listeners: generation.listeners.clone(),
            sessions: SessionTotals {
                active: totals.sessions_active(),
                limit: u64::try_from(generation.config.limits.sessions).unwrap_or(u64::MAX),
                accepted_total: totals.sessions_accepted_total,
                refused_total: totals.sessions_refused_total,
            },
            messages: MessageTotals {
                accepted_total: totals.messages_total.of(MessageOutcome::Accepted),
                rejected_total: totals.messages_total.of(MessageOutcome::Rejected),
                deferred_total: totals.messages_total.of(MessageOutcome::Deferred),
            },
            refusals_total: refusals.collect(),
            tls: secured::of_clients(&totals),
            logins: logins::of_users(&totals),
            log_lines_lost_total: log::lost_lines(),
            proofs: ProofTotals {
                run_total: totals.proofs_run_total,
                found_total: totals.proofs_found_total,
                inconclusive_total: totals.proofs_inconclusive_total,
            },
            backends: generation.backends.iter().map(|backend| backend_status(&generation.config, backend)).collect(),
            routes,
            more_routes,
            certificates: self.certificates(&generation),
            xdp: XdpStatus {
                bans,
                accepted_total: totals.connections_total,
                problem: (!kernel_problems.is_empty()).then(|| kernel_problems.join("; ")),
                ..xdp
            },
            top_sources: Vec::new(),
            refused_domains: self.refused_domains(),
        };
        status.problems = find_problems(&status, &recent_refusals());
        status
    }

    /// What clients are shown who ask for TLS.
    pub(super) fn certificates(&self, generation: &Generation) -> Vec<CertificateStatus> {
        let acceptor = self.acceptor();
        acceptor.map(|it| certificates::statuses(it.certificates(), &generation.listeners)).unwrap_or_default()
    }

    /// So many bans in force at most, the newest first.
    pub(super) fn newest_bans(&self, limit: usize) -> BanList {
        let now = now();
        let calendar = Calendar::new(now);
        let bans = self.verdicts.bans(now).iter().take(limit).map(|ban| self.ban_status(calendar, ban)).collect();
        BanList { now: calendar.unix_seconds(now), bans }
    }

    /// Whether it is on its way down.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn ban_status(&self, calendar: Calendar, ban: &BanView) -> BanStatus {
        BanStatus {
            address: Shown(ban.network).to_string(),
            note: None,
            reason: ban.reason.clone(),
            by: match ban.cause {
                Cause::Offences(_) => BannedBy::Offences,
                Cause::Administrator => BannedBy::Administrator,
            },
            since: calendar.unix_seconds(ban.since),
            until: calendar.unix_seconds(ban.until),
            connections_refused: ban.refused,
            packets_dropped: self.kernel.as_ref().map_or(0, |kernel| kernel.dropped(ban.network)),
        }
    }

    fn refused_domains(&self) -> Vec<RefusedDomainStatus> {
        let calendar = Calendar::new(now());
        let domains = self.verdicts.refused_domains(REFUSED_DOMAINS).into_iter();
        let status = |refused: RefusedDomain| RefusedDomainStatus {
            domain: refused.domain.into(),
            refused_total: refused.count,
            last_at: calendar.unix_seconds(refused.last),
        };
        domains.map(status).collect()
    }

    fn busiest(&self, sources: Vec<SourceAccount>, limit: usize) -> Vec<TopSource> {
        if let Some(kernel) = &self.kernel
            && kernel.mode() != Mode::Off
        {
            return kernel.busiest(sources, limit, &self.admission);
        }
        // Then only sessions are known.
        let mut sources = self.admission.clients();
        sources.sort_unstable_by_key(|(source, sessions)| (Reverse(*sessions), *source));
        sources.truncate(limit);
        let status = |(source, sessions): (Source, usize)| TopSource {
            address: source.to_string(),
            active: u64::try_from(sessions).unwrap_or(u64::MAX),
            ..TopSource::default()
        };
        sources.into_iter().map(status).collect()
    }
}

/// With the task that watches its certificates.
pub(super) fn watched(acceptor: Acceptor) -> (Acceptor, JoinSet<()>) {
    let watch = certificates::watch(acceptor.certificates().clone());
    (acceptor, watch)
}

impl Calendar {
    fn new(now: Millis) -> Self {
        Self { now, unix_ms: u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX) }
    }

    fn unix_seconds(self, at: Millis) -> u64 {
        self.unix_ms.saturating_add(at.since(self.now)).saturating_sub(self.now.since(at)) / 1000
    }
}

fn backend_status(whole: &Config, backend: &Backend) -> BackendStatus {
    let Backend { config, state, proof, .. } = backend;
    let health = state.health();
    let unasked = || "it has not answered its first health check yet".to_owned();
    let LastProof { state: verdict, checked_at, findings, .. } = proof.last();
    BackendStatus {
        name: config.name.clone(),
        address: config.address.to_string(),
        healthy: health.healthy,
        drained: state.is_draining(),
        dialect: dialect(config.kind, &health, state.learned_ipv6_form()),
        problem: health.trouble().map(str::to_owned).or_else(|| (!health.healthy).then(unasked)),
        identity: config.identity.as_str().to_owned(),
        tls: secured::of_backend(config, &health),
        logins: logins::of_backend(whole, config, &health, state.is_on_this_host()),
        proof: ProofStatus { state: verdict, checked_at, findings },
    }
}

fn dialect(kind: Option<ServerKind>, health: &Health, ipv6_form: Option<Ipv6Form>) -> Option<DialectStatus> {
    if health.banner.is_empty() {
        return None;
    }
    let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = health.keywords.iter().map(words);
    let xclient = lines.find(|words| words.first().is_some_and(|word| word.eq_ignore_ascii_case("XCLIENT")));
    let mut hello = vec![String::new()];
    hello.extend(health.keywords.iter().cloned());
    let greeting = Greeting { banner: health.banner.clone(), hello };
    Some(DialectStatus {
        server: recognise(kind, &greeting).how,
        banner: health.banner.clone(),
        extensions: health.keywords.clone(),
        xclient: xclient.map(|words| words[1..].to_vec()).unwrap_or_default(),
        ipv6_form: ipv6_form.map(|form| match form {
            Ipv6Form::Prefixed => "prefixed".to_owned(),
            Ipv6Form::Bare => "bare".to_owned(),
        }),
    })
}
