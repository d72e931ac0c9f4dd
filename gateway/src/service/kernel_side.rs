//! The kernel side as `status`, `bans` and `top` show it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use tracing::{info, warn};

use crate::accept::Admission;
use crate::config::{self, Config, Xdp};
use crate::control::{InterfaceStatus, TopSource, XdpStatus};
use crate::kernel::{
    Attachment, Card, KernelError, Mode, Pins, Program, Rate, Settings, SourceAccount, Steering, Totals, Truth,
};
use crate::observe::gauges::{self, Sample, number};
use crate::verdicts::Verdicts;

use super::takeover::{Inheritance, Inherited, TakeoverError};
/// What is attached, and its maps.
#[derive(Debug)]
pub(super) struct KernelSide {
    attachment: Attachment,
    monitor_only: AtomicBool,
    steering: Steering,
    before: Before,
}

/// As it was when this process began to accept: the program counts on over restarts, the gateway begins at zero, or where the
/// process before it was.
#[derive(Debug, Clone, Copy)]
struct Before {
    totals: Totals,
    accepted: u64,
    /// SYNs that had come to nothing.
    lost: u64,
}

/// How far the kernel side is before the start.
#[derive(Debug)]
pub(super) enum KernelStage {
    /// As far as it can be had.
    Attached(Option<Attachment>, Option<String>),
    /// The cards are another process's still, which this one takes over from.
    Loaded(Box<Loaded>),
    /// None is wanted.
    Unwanted,
}

impl KernelStage {
    pub(super) fn new(
        config: &Config,
        ports: &[u16],
        inheritance: Option<&Inheritance>,
    ) -> Result<Self, TakeoverError> {
        if !is_wanted(config) {
            if inheritance.is_none() {
                remove(config);
            }
            return Ok(Self::Unwanted);
        }
        let loaded = load(config);
        let Some(inheritance) = inheritance else {
            let (attachment, problem) = loaded.attach(config, ports);
            return Ok(Self::Attached(attachment, problem));
        };
        // A gateway without its kernel side works, but is less than the one that runs.
        match loaded.failure().filter(|_| inheritance.has_kernel()) {
            Some(problem) => Err(TakeoverError::Kernel(problem)),
            None => Ok(Self::Loaded(Box::new(loaded))),
        }
    }
}

/// The program in the kernel, on no card yet, and what could not be had. Without it the gateway works too: whatever fails is
/// one sentence for the log and for `status`.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    program: Option<Program>,
    problems: Vec<String>,
}

impl Loaded {
    fn complain(&mut self, error: &dyn std::fmt::Display) {
        warn!("{error}");
        self.problems.push(error.to_string());
    }

    /// Why it is not as it was asked for.
    pub(super) fn problem(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| self.problems.join("; "))
    }

    /// Why there is no program, though one was asked for.
    pub(super) fn failure(&self) -> Option<String> {
        self.problem().filter(|_| self.program.is_none())
    }

    /// Puts the program on the configured cards.
    pub(super) fn attach(mut self, config: &Config, ports: &[u16]) -> (Option<Attachment>, Option<String>) {
        let attachment = self.program.take().and_then(|mut program| {
            let configured = program.set_ports(ports).and_then(|()| program.configure(&settings(config)));
            let attached = configured.and_then(|()| Attachment::new(program, &config.xdp));
            attached.inspect_err(|error| self.complain(error)).ok()
        });
        (attachment, self.problem())
    }
}

/// Whether the configuration wants a kernel side.
pub(super) fn is_wanted(config: &Config) -> bool {
    !config.xdp.interfaces.is_empty() && config.xdp.mode != config::XdpMode::Off
}

/// Takes what an earlier run left off the cards.
pub(super) fn remove(config: &Config) {
    if let Err(error) = Pins::new(&config.xdp.pins).remove() {
        warn!("the kernel side of an earlier run cannot be taken off: {error}");
    }
}

/// The program, with pins if they can be had, for a restart must let no packet through unseen.
pub(super) fn load(config: &Config) -> Loaded {
    let mut loaded = Loaded::default();
    let program = match Program::load(Some(&Pins::new(&config.xdp.pins))) {
        Err(error @ KernelError::Pins { .. }) => {
            loaded.complain(&format_args!("{error}; bans in the kernel and counters end with this gateway"));
            Program::load(None)
        }
        other => other,
    };
    loaded.program = program.inspect_err(|error| loaded.complain(error)).ok();
    if loaded.program.as_ref().is_some_and(Program::is_adopted) {
        info!("there is no privilege to load the kernel side's program, so that of an earlier run stays");
    }
    loaded
}

/// The kernel side begins to follow verdicts, on its cards by now; a gateway without one works too.
pub(super) fn steer(
    kernel: KernelStage,
    (config, addresses): (&Config, &[SocketAddr]),
    verdicts: &Arc<Verdicts>,
    inherited: Option<&Inherited>,
) -> (Option<KernelSide>, Option<String>) {
    let (attachment, problem) = match kernel {
        KernelStage::Attached(attachment, problem) => (attachment, problem),
        KernelStage::Loaded(loaded) => {
            let ports: Vec<_> = addresses.iter().map(SocketAddr::port).collect();
            loaded.attach(config, &ports)
        }
        KernelStage::Unwanted => (None, None),
    };
    let before = inherited.map_or((Truth::Maps, 0, 0), |Inherited { counts, lost, .. }| {
        (Truth::Book, counts.of("connections_total"), *lost)
    });
    match attachment.map(|attachment| KernelSide::start(attachment, config, verdicts, before)) {
        None => (None, problem),
        Some(Ok(kernel)) => (Some(kernel), problem),
        Some(Err(error)) => {
            warn!("{error}");
            (None, Some(error.to_string()))
        }
    }
}

fn settings(config: &Config) -> Settings {
    let Xdp { monitor_only, syn_rate, syn_burst, .. } = config.xdp;
    Settings { monitor_only, syn: Some(Rate { per_second: syn_rate, burst: syn_burst }), ..Settings::default() }
}

impl KernelSide {
    /// Its numbers for monitoring.
    pub(super) fn sample(&self, samples: &mut Vec<Sample>) {
        for Card { name, mode, .. } in self.cards() {
            samples.push(Sample::labelled(&gauges::KERNEL_ATTACHED, [&name, mode.as_str()], 1.0));
        }
        let totals = self.totals();
        samples.push(Sample::plain(&gauges::KERNEL_PACKETS, number(totals.packets())));
        samples.push(Sample::plain(&gauges::KERNEL_SYNS, number(totals.syn())));
        samples.push(Sample::plain(&gauges::KERNEL_FAILED_WRITES, number(self.steering.failures())));
        for (cause, count) in totals.dropped() {
            samples.push(Sample::labelled(&gauges::KERNEL_DROPPED, [cause], number(count)));
        }
    }

    /// From now on verdicts go into the kernel. Starts threads. `accepted` connections were accepted before, and so many SYNs
    /// `lost`, by the process that this one takes over from, whose book of bans then counts.
    pub(super) fn start(
        attachment: Attachment,
        config: &Config,
        verdicts: &Arc<Verdicts>,
        (truth, accepted, lost): (Truth, u64, u64),
    ) -> Result<Self, KernelError> {
        let trusted = &config.relay.allowed_networks;
        let steering = attachment.with(|program| Steering::start(program, verdicts, &config.xdp, trusted, truth))?;
        let before = Before { totals: steering.reader.totals()?, accepted, lost };
        attachment.watch()?;
        Ok(Self { attachment, monitor_only: AtomicBool::new(config.xdp.monitor_only), steering, before })
    }

    /// Leaves maps and cards to another process of this gateway.
    pub(super) fn lay_down(&self) {
        self.steering.lay_down();
        self.attachment.leave();
    }

    /// Takes them back, where that one did not come to serve.
    pub(super) fn take_up(&self, config: &Config, ports: &[u16]) -> Result<(), KernelError> {
        self.attachment.come_back()?;
        self.configure(config, ports)?;
        self.steering.take_up();
        Ok(())
    }

    /// Takes the program off every card.
    pub(super) fn clear(&self) -> Result<(), KernelError> {
        self.attachment.clear()
    }

    fn totals(&self) -> Totals {
        read("counters", self.steering.reader.totals()).unwrap_or(self.before.totals)
    }

    /// Other ports and limits from now on. Which cards it is on stays as it was: that takes privileges.
    pub(super) fn configure(&self, config: &Config, ports: &[u16]) -> Result<(), KernelError> {
        self.attachment.with(|program| {
            program.set_ports(ports)?;
            program.configure(&settings(config))
        })?;
        self.monitor_only.store(config.xdp.monitor_only, Ordering::Relaxed);
        Ok(())
    }

    /// What the kernel has now, on each card.
    fn cards(&self) -> Vec<Card> {
        read("cards", self.attachment.cards()).unwrap_or_default()
    }

    /// Where the program is, and why not where it should be: what an administrator wants to hear of when it changes.
    pub(super) fn coverage(&self) -> String {
        let card = |card: &Card| match &card.problem {
            Some(problem) => format!("{}: {} ({problem})", card.name, card.mode.as_str()),
            None => format!("{}: {}", card.name, card.mode.as_str()),
        };
        self.cards().iter().map(card).collect::<Vec<_>>().join(", ")
    }

    /// The best mode that any interface has: `native` only if the driver does it somewhere.
    pub(super) fn mode(&self) -> Mode {
        best(&self.cards())
    }

    /// `accepted` counts the connections that this gateway was handed. Sources are another, dearer question.
    pub(super) fn status(&self, accepted: u64) -> XdpStatus {
        let totals = self.totals();
        let owned = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| -> BTreeMap<String, u64> {
            pairs.map(|(name, count)| (name.to_owned(), count)).collect()
        };
        let syns = totals.syn().saturating_sub(self.before.totals.syn());
        let dropped = totals.syn_dropped().saturating_sub(self.before.totals.syn_dropped());
        let accepted = accepted.saturating_sub(self.before.accepted);
        let lost = syns.saturating_sub(dropped).saturating_sub(accepted);
        let cards = self.cards();
        let problems: Vec<_> = cards.iter().filter_map(problem).collect();
        XdpStatus {
            mode: best(&cards),
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
            interfaces: cards
                .into_iter()
                .map(|Card { name, mode, problem }| InterfaceStatus { name, mode, problem })
                .collect(),
            packets_total: totals.packets(),
            syn_total: totals.syn(),
            dropped_total: owned(&mut totals.dropped()),
            monitor_only: self.monitor_only.load(Ordering::Relaxed),
            would_drop_total: owned(&mut totals.would_drop()),
            lost_before_accept_total: self.before.lost.saturating_add(lost),
            counters_total: owned(&mut totals.all()),
            failed_writes_total: self.steering.failures(),
            ..XdpStatus::off()
        }
    }

    /// Packets dropped by the ban of exactly this network.
    pub(super) fn dropped(&self, network: IpNet) -> u64 {
        read("bans", self.steering.reader.dropped(network)).unwrap_or(0)
    }

    /// Every source with an account: one system call each.
    pub(super) fn sources(&self) -> Vec<SourceAccount> {
        read("sources", self.steering.reader.sources()).unwrap_or_default()
    }

    /// Those of `sources` that sent most packets.
    pub(super) fn busiest(
        &self,
        mut sources: Vec<SourceAccount>,
        limit: usize,
        admission: &Admission,
    ) -> Vec<TopSource> {
        sources.sort_unstable_by_key(|SourceAccount { source, account }| (Reverse(account.packets), *source));
        sources.truncate(limit);
        let top = |SourceAccount { source, account }: SourceAccount| TopSource {
            address: source.to_string(),
            syn: account.syn,
            packets: account.packets,
            bytes: account.bytes,
            active: u64::try_from(admission.connections_of(source)).unwrap_or(u64::MAX),
            dropped: account.dropped.saturating_add(self.dropped(source.network())),
        };
        sources.into_iter().map(top).collect()
    }
}

fn best(cards: &[Card]) -> Mode {
    let has = |mode: &Mode| cards.iter().any(|card| card.mode == *mode);
    [Mode::Native, Mode::Generic].into_iter().find(has).unwrap_or(Mode::Off)
}

/// What is not as it was asked for, with the card's name in it.
fn problem(Card { name, problem, .. }: &Card) -> Option<String> {
    let problem = problem.as_ref()?;
    Some(if problem.contains(&format!("`{name}`")) { problem.clone() } else { format!("`{name}`: {problem}") })
}

fn read<T>(what: &str, result: Result<T, KernelError>) -> Option<T> {
    result.inspect_err(|error| warn!(%error, "cannot read the kernel side's {what}")).ok()
}
