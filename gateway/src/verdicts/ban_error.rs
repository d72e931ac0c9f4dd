//! Why an administrator's word about a ban cannot be followed.

use ipnet::IpNet;

use super::ban_view::Shown;
use super::protected::Protection;

/// The widest networks that may be banned: who wants more wants a firewall, or mistyped.
pub(super) const PREFIX_MIN_V4: u8 = 8;
pub(super) const PREFIX_MIN_V6: u8 = 16;

/// Why somebody cannot be banned, or let in again. Its display is a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    /// Never banned, and why.
    #[error("{network} is never banned: {1}", network = Shown(*.0))]
    Protected(IpNet, Protection),
    /// Half the world.
    #[error("{0} is too wide to ban; the widest are /{v4} of IPv4 and /{v6} of IPv6", v4 = PREFIX_MIN_V4, v6 = PREFIX_MIN_V6)]
    TooWide(IpNet),
    /// The book is full.
    #[error("there are as many bans as there may be; take some back with `unban`")]
    Full,
    /// There is no ban; there may be a wider one that holds it.
    #[error("{network} is not banned{wider}", network = Shown(*.0), wider = wider(*.1))]
    NotBanned(IpNet, Option<IpNet>),
}

fn wider(network: Option<IpNet>) -> String {
    network.map(|network| format!(" itself, but {} is", Shown(network))).unwrap_or_default()
}
