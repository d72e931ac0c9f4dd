//! The kernel side as `status`, `bans` and `top` show it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_common::INTERFACE_OUTSIDE;
use ipnet::IpNet;
use tracing::{info, warn};

use crate::accept::Admission;
use crate::config::{Config, Xdp, XdpMode as XdpWanted};
use crate::control::{InterfaceStatus, TopSource, XdpMode, XdpStatus};
use crate::kernel::{KernelError, Mode, Pins, Program, Rate, Settings, SourceAccount, Steering, Totals, Wanted};
use crate::observe::gauges::{self, Sample};
use crate::verdicts::Verdicts;

use super::numbers::number;

/// The program on its cards, before anything steers it.
#[derive(Debug)]
pub(super) struct Attachment {
    program: Program,
    interfaces: Vec<InterfaceStatus>,
}

/// What is attached, and its maps.
#[derive(Debug)]
pub(super) struct KernelSide {
    interfaces: Vec<InterfaceStatus>,
    monitor_only: bool,
    steering: Steering,
    /// As it was when this gateway began to accept: the program counts on over restarts, the gateway begins at zero.
    before: Totals,
    /// Without pins it is on the cards as long as it is held.
    _program: Program,
}

/// Puts the program on the configured cards. Without it the gateway works too: whatever fails is one sentence for the log
/// and for `status`.
pub(super) fn attach(config: &Config, ports: &[u16]) -> (Option<Attachment>, Option<String>) {
    let wanted = match config.xdp.mode {
        _ if config.xdp.interfaces.is_empty() => None,
        XdpWanted::Off => None,
        XdpWanted::Auto => Some(Wanted::Auto),
        XdpWanted::Native => Some(Wanted::Native),
        XdpWanted::Generic => Some(Wanted::Generic),
    };
    let pins = Pins::new(&config.xdp.pins);
    let Some(wanted) = wanted else {
        detach_left_over(&pins);
        return (None, None);
    };
    let mut problems = Vec::new();
    let mut complain = |error: &dyn std::fmt::Display| {
        warn!("{error}");
        problems.push(error.to_string());
    };
    let attachment = program(config, &pins, ports, &mut complain).map(|program| {
        let mut attachment = Attachment { program, interfaces: Vec::new() };
        for name in &config.xdp.interfaces {
            attachment.attach(name, config, wanted).unwrap_or_else(|error| complain(&error));
        }
        attachment
    });
    let attachment = attachment.filter(|attachment| !attachment.interfaces.is_empty());
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

/// What another run left on cards that are not wanted any more.
fn detach_left_over(pins: &Pins) {
    if pins.folder().exists()
        && let Err(error) = Program::load(Some(pins)).and_then(Program::detach)
    {
        warn!("the kernel side of an earlier run cannot be taken off: {error}");
    }
}

impl Attachment {
    fn attach(&mut self, name: &str, config: &Config, wanted: Wanted) -> Result<(), KernelError> {
        let attached = self.program.attach(name, wanted, config.xdp.force)?;
        let outside = config.xdp.outside.iter().any(|outside| outside == name);
        self.program.set_interface(attached.index, if outside { INTERFACE_OUTSIDE } else { 0 })?;
        let mode = match attached.mode {
            Mode::Native => XdpMode::Native,
            Mode::Generic => XdpMode::Generic,
            Mode::Off => XdpMode::Off,
        };
        if let Some(why) = &attached.why_not_native {
            warn!(interface = name, why, "the kernel side is attached in generic mode, which costs more");
        }
        if attached.replaced {
            warn!(interface = name, "somebody else's XDP program was taken off, as `xdp.force` says");
        }
        info!(interface = name, mode = mode.as_str(), taken_over = attached.taken_over, "the kernel side is attached");
        self.interfaces.push(InterfaceStatus { name: name.to_owned(), mode });
        Ok(())
    }
}

impl KernelSide {
    /// Its numbers for monitoring.
    pub(super) fn sample(&self, samples: &mut Vec<Sample>) {
        for InterfaceStatus { name, mode, .. } in &self.interfaces {
            samples.push(Sample::labelled(&gauges::KERNEL_ATTACHED, [name, mode.as_str()], 1.0));
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
        let Attachment { program, interfaces } = attachment;
        let steering = Steering::start(&program, verdicts, &config.xdp, &config.relay.allowed_networks)?;
        let before = steering.reader.totals()?;
        Ok(Self { interfaces, monitor_only: config.xdp.monitor_only, steering, before, _program: program })
    }

    /// The best mode that any interface has: `native` only if the driver does it somewhere.
    pub(super) fn mode(&self) -> XdpMode {
        let modes = || self.interfaces.iter().map(|interface| interface.mode);
        [XdpMode::Native, XdpMode::Generic]
            .into_iter()
            .find(|mode| modes().any(|other| other == *mode))
            .unwrap_or(XdpMode::Off)
    }

    /// `accepted` counts the connections that this gateway was handed. Sources are another, dearer question.
    pub(super) fn status(&self, accepted: u64) -> XdpStatus {
        let totals = read("counters", self.steering.reader.totals()).unwrap_or(self.before);
        let owned = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| -> BTreeMap<String, u64> {
            pairs.map(|(name, count)| (name.to_owned(), count)).collect()
        };
        let syns = totals.syn().saturating_sub(self.before.syn());
        let dropped = totals.syn_dropped().saturating_sub(self.before.syn_dropped());
        XdpStatus {
            mode: self.mode(),
            interfaces: self.interfaces.clone(),
            packets_total: totals.packets(),
            syn_total: totals.syn(),
            dropped_total: owned(&mut totals.dropped()),
            monitor_only: self.monitor_only,
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

fn read<T>(what: &str, result: Result<T, KernelError>) -> Option<T> {
    result.inspect_err(|error| warn!(%error, "cannot read the kernel side's {what}")).ok()
}
