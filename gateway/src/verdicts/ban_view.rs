//! A ban as it is shown to others: a copy, for the book stays under its lock.

use std::fmt;
use std::sync::atomic::Ordering;

use ipnet::IpNet;

use crate::policy::bans::{Ban, Cause};
use crate::time::Millis;

/// A ban in force, as it stood when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanView {
    /// Exactly this network, an address among them.
    pub network: IpNet,
    /// Whose word it is.
    pub cause: Cause,
    /// For people: what was counted, or what the administrator said.
    pub reason: String,
    /// When it was pronounced; a ban that is made longer keeps that time.
    pub since: Millis,
    /// Its end.
    pub until: Millis,
    /// Whether the kernel side may drop its packets.
    pub in_kernel: bool,
    /// Connections refused for it by the gateway itself.
    pub refused: u64,
}

impl BanView {
    pub(super) fn of(ban: &Ban) -> Self {
        Self {
            network: ban.network,
            cause: ban.cause,
            reason: ban.reason.as_ref().to_owned(),
            since: ban.since,
            until: ban.until,
            in_kernel: ban.in_kernel,
            refused: ban.refused.load(Ordering::Relaxed),
        }
    }
}

/// A network as people write it: a single address without its prefix length.
#[derive(Debug, Clone, Copy)]
pub struct Shown(pub IpNet);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpNet::V4(network) if network.prefix_len() == 32 => network.addr().fmt(f),
            network => network.fmt(f),
        }
    }
}
