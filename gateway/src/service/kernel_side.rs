//! The kernel side as `status`, `bans` and `top` show it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;
use tracing::warn;

use crate::accept::Admission;
use crate::control::{InterfaceStatus, TopSource, XdpMode, XdpStatus};
use crate::kernel::{KernelError, SourceAccount, Steering, Totals};

/// What is attached, and its maps.
#[derive(Debug)]
pub(super) struct KernelSide {
    interfaces: Vec<InterfaceStatus>,
    monitor_only: bool,
    steering: Steering,
    /// As it was when this gateway began to accept: the program counts on over restarts, the gateway begins at zero.
    before: Totals,
}

impl KernelSide {
    pub(super) fn new(
        interfaces: Vec<InterfaceStatus>,
        monitor_only: bool,
        steering: Steering,
    ) -> Result<Self, KernelError> {
        let before = steering.reader.totals()?;
        Ok(Self { interfaces, monitor_only, steering, before })
    }

    /// The best mode that any interface has: `native` only if the driver does it somewhere.
    pub(super) fn mode(&self) -> XdpMode {
        let modes = || self.interfaces.iter().map(|interface| interface.mode);
        [XdpMode::Native, XdpMode::Generic]
            .into_iter()
            .find(|mode| modes().any(|other| other == *mode))
            .unwrap_or(XdpMode::Off)
    }

    /// `accepted` counts the connections that this gateway was handed.
    pub(super) fn status(&self, accepted: u64, bans: u64) -> XdpStatus {
        let reader = &self.steering.reader;
        let totals = read("counters", reader.totals()).unwrap_or(self.before);
        let sources = read("sources", reader.sources()).unwrap_or_default();
        let owned = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| -> BTreeMap<String, u64> {
            pairs.map(|(name, count)| (name.to_owned(), count)).collect()
        };
        let drops = |totals: &Totals| totals.dropped().map(|(_, count)| count).sum::<u64>();
        let syns = totals.syn().saturating_sub(self.before.syn());
        let dropped = drops(&totals).saturating_sub(drops(&self.before));
        XdpStatus {
            mode: self.mode(),
            interfaces: self.interfaces.clone(),
            packets_total: totals.packets(),
            syn_total: totals.syn(),
            dropped_total: owned(&mut totals.dropped()),
            monitor_only: self.monitor_only,
            would_drop_total: owned(&mut totals.would_drop()),
            accepted_total: accepted,
            lost_before_accept_total: syns.saturating_sub(dropped).saturating_sub(accepted),
            counters_total: owned(&mut totals.all()),
            failed_writes_total: self.steering.failures(),
            tracked_sources: u64::try_from(sources.len()).unwrap_or(u64::MAX),
            bans,
        }
    }

    /// Packets dropped by the ban of exactly this network.
    pub(super) fn dropped(&self, network: IpNet) -> u64 {
        read("bans", self.steering.reader.dropped(network)).unwrap_or(0)
    }

    /// Those that sent most packets.
    pub(super) fn busiest(&self, limit: usize, admission: &Admission) -> Vec<TopSource> {
        let mut sources = read("sources", self.steering.reader.sources()).unwrap_or_default();
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
