//! What a running gateway can be asked: the words between both ends of the control socket, and what they may say.

use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::observe::show::printable;

use super::{BAN_MAX, REASON_MAX, Renewal};

/// A request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// For a `Status`.
    Status,
    /// For the `BanStatus` that is then in force.
    Ban { network: IpNet, seconds: u64, reason: String },
    /// For the `BanStatus` that was.
    Unban { network: IpNet },
    /// For a `BanList`.
    Bans,
    /// For a `TopList` of this length at most.
    Top { limit: usize },
    /// For a `ReloadAnswer`.
    Reload,
    /// For an `EventList` of what has higher numbers.
    Events { after: u64 },
    /// For a `SessionList` of this length at most.
    Sessions { limit: usize },
    /// For the `SessionStatus` of a session that then ends.
    Kill { session: u64 },
    /// For a `TraceList`, and to be told more for some seconds.
    Trace { network: IpNet, after: Option<u64> },
    /// For a `LogStatus`, as it then is.
    Log { level: String, seconds: Option<u64> },
    /// For a `DrainStatus`: a backend, or one of its servers, is taken out or back in.
    Drain { backend: String, server: Option<String>, draining: bool },
    /// For a `RenewAnswer`.
    Renew(Renewal),
}

/// A request that says what it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestFault {
    #[error("{0} is part of IPv4 and part of IPv6; name one of them")]
    BothFamilies(IpNet),
    #[error("a ban lasts at least one second")]
    TooShort,
    #[error("a ban lasts {} hours at most", BAN_MAX.as_secs() / 3600)]
    TooLong,
    #[error("a ban has a reason; say which")]
    NoReason,
    #[error("a reason has {max} bytes at most", max = REASON_MAX)]
    LongReason,
}

/// IPv4 that is written as IPv6 is IPv4, or the ban would never meet anybody.
pub(super) fn canonical(network: IpNet) -> Result<IpNet, RequestFault> {
    let IpNet::V6(mapped) = network else { return Ok(network) };
    let Some(ip) = mapped.addr().to_ipv4_mapped() else { return Ok(network) };
    let prefix = mapped.prefix_len().checked_sub(96).ok_or(RequestFault::BothFamilies(network))?;
    Ipv4Net::new(ip, prefix).map(IpNet::V4).map_err(|_| RequestFault::BothFamilies(network))
}

pub(super) fn ban_length(seconds: u64) -> Result<Duration, RequestFault> {
    match seconds {
        0 => Err(RequestFault::TooShort),
        seconds if seconds > BAN_MAX.as_secs() => Err(RequestFault::TooLong),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// The reason as it may be shown.
pub(super) fn ban_reason(reason: &str) -> Result<String, RequestFault> {
    match reason.trim() {
        "" => Err(RequestFault::NoReason),
        reason if reason.len() > REASON_MAX => Err(RequestFault::LongReason),
        reason => Ok(printable(reason).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_canonical() {
        for (asked, expected) in [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("::ffff:192.0.2.0/120", Some("192.0.2.0/24")),
            ("::ffff:192.0.2.9/128", Some("192.0.2.9/32")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:192.0.2.0/64", None),
        ] {
            let done = canonical(asked.parse().unwrap()).ok().map(|network| network.to_string());
            assert_eq!(done.as_deref(), expected, "{asked}");
        }
    }

    #[test]
    fn bans_have_bounds() {
        for (seconds, good) in
            [(0, false), (1, true), (366 * 86_400, true), (366 * 86_400 + 1, false), (u64::MAX, false)]
        {
            assert_eq!(ban_length(seconds).is_ok(), good, "{seconds}");
        }
        assert!(ban_reason(" ").is_err() && ban_reason(&"x".repeat(REASON_MAX + 1)).is_err());
        assert!(!ban_reason(" a\u{1b}b ").unwrap().contains(char::is_control));
    }
}
