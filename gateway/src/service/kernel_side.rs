//! The kernel side as `status`, `bans` and `top` show it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use tracing::{info, warn};

use crate::accept::Admission;
use crate::config::{self, Config, Xdp};
use crate::control::{InterfaceStatus, TopSource, XdpStatus};
use crate::kernel::{
    Attachment, Card, KernelError, Mode, Pins, Program, Rate, Settings, SourceAccount, Steering, Totals,
};
use crate::observe::gauges::{self, Sample, number};
use crate::verdicts::Verdicts;

/// What is attached, and its maps.
#[derive(Debug)]
pub(super) struct KernelSide {
    attachment: Attachment,
    monitor_only: AtomicBool,
    steering: Steering,
    /// As it was when this gateway began to accept: the program counts on over restarts, the gateway begins at zero.
    before: Totals,
}

/// Puts the program on the configured cards. Without it the gateway works too: whatever fails is one sentence for the log
/// and for `status`.
pub(super) fn attach(config: &Config, ports: &[u16]) -> (Option<Attachment>, Option<String>) {
    let pins = Pins::new(&config.xdp.pins);
    if config.xdp.interfaces.is_empty() || config.xdp.mode == config::XdpMode::Off {
        if let Err(error) = pins.remove() {
            warn!("the kernel side of an earlier run cannot be taken off: {error}");
        }
        return (None, None);
    }
    let mut problems = Vec::new();
    let mut complain = |error: &dyn std::fmt::Display| {
        warn!("{error}");
        problems.push(error.to_string());
    };
    let attachment = program(config, &pins, ports, &mut complain)
        .and_then(|program| Attachment::new(program, &config.xdp).inspect_err(|error| complain(error)).ok());
    (attachment, (!problems.is_empty()).then(|| problems.join("; ")))
}

/// The program, configured; with pins if they can be had, for a restart must let no packet through unseen.
fn program(
    config: &Config,
    pins: &Pins,
    ports: &[u16],
    complain: &mut dyn FnMut(&dyn std::fmt::Display),
) -> Option<Program> {
    let configured = |pins| {
        let mut program = Program::load(pins)?;
        program.set_ports(ports)?;
        program.configure(&settings(config))?;
        if program.is_adopted() {
            info!("there is no privilege to load the kernel side's program, so that of an earlier run stays");
        }
        Ok(program)
    };
    match configured(Some(pins)) {
        Err(error @ KernelError::Pins { .. }) => {
            complain(&format_args!("{error}; bans in the kernel and counters end with this gateway"));
            configured(None).map_err(|error| complain(&error)).ok()
        }
        other => other.map_err(|error| complain(&error)).ok(),
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
        let totals = read("counters", self.steering.reader.totals()).unwrap_or(self.before);
        samples.push(Sample::plain(&gauges::KERNEL_PACKETS, number(totals.packets())));
        samples.push(Sample::plain(&gauges::KERNEL_SYNS, number(totals.syn())));
        samples.push(Sample::plain(&gauges::KERNEL_FAILED_WRITES, number(self.steering.failures())));
        for (cause, count) in totals.dropped() {
            samples.push(Sample::labelled(&gauges::KERNEL_DROPPED, [cause], number(count)));
        }
    }

    /// From now on verdicts go into the kernel. Starts threads.
    pub(super) fn start(
        attachment: Attachment,
        config: &Config,
        verdicts: &Arc<Verdicts>,
    ) -> Result<Self, KernelError> {
        let trusted = &config.relay.allowed_networks;
        let steering = attachment.with(|program| Steering::start(program, verdicts, &config.xdp, trusted))?;
        let before = steering.reader.totals()?;
        attachment.watch()?;
        Ok(Self { attachment, monitor_only: AtomicBool::new(config.xdp.monitor_only), steering, before })
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
        let totals = read("counters", self.steering.reader.totals()).unwrap_or(self.before);
        let owned = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| -> BTreeMap<String, u64> {
            pairs.map(|(name, count)| (name.to_owned(), count)).collect()
        };
        let syns = totals.syn().saturating_sub(self.before.syn());
        let dropped = totals.syn_dropped().saturating_sub(self.before.syn_dropped());
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
            lost_before_accept_total: syns.saturating_sub(dropped).saturating_sub(accepted),
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
