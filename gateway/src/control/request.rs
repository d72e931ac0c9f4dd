//! What a running gateway can be asked: the words between both ends of the control socket, and what they may say.

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::observe::show::printable;

use super::upgrade::ProgramId;
use super::{BAN_MAX, REASON_MAX, Renewal, SESSIONS_MAX, TOP_MAX};

/// A request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// For a `Status`.
    Status,
    /// For the `BanStatus` that is then in force.
    Ban {
        /// Who.
        network: IpNet,
        /// For how long.
        seconds: u64,
        /// Why.
        reason: String,
    },
    /// For the `BanStatus` that was.
    Unban {
        /// As it was banned.
        network: IpNet,
    },
    /// For a `BanList`.
    Bans,
    /// For a `TopList` of this length at most.
    Top {
        /// Sources.
        limit: usize,
    },
    /// For a `ReloadAnswer`. Who would rather upgrade where another program is installed says which one asks.
    Reload {
        /// Which asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<ProgramId>,
    },
    /// For an `UpgradeAnswer`; the next reload that says which program asks is an upgrade.
    Upgrade,
    /// To take this process's place.
    TakeOver {
        /// Of the words of a handover.
        version: u32,
    },
    /// For an `EventList` of what has higher numbers.
    Events {
        /// The last number that is known.
        after: u64,
    },
    /// For a `SessionList` of this length at most.
    Sessions {
        /// Sessions.
        limit: usize,
    },
    /// For the `SessionStatus` of a session that then ends.
    Kill {
        /// Its number.
        session: u64,
    },
    /// For a `TraceList`, and to be told more for some seconds.
    Trace {
        /// Whom.
        network: IpNet,
        /// The last line's number that is known.
        after: Option<u64>,
    },
    /// For a `LogStatus`, as it then is.
    Log {
        /// As `log.level` has it.
        level: String,
        /// For how long.
        seconds: Option<u64>,
    },
    /// For a `DrainStatus`: servers are taken out, or back in.
    Drain {
        /// Whose.
        backend: String,
        /// Only this one of them.
        server: Option<String>,
        /// Out, or back in.
        draining: bool,
    },
    /// For a `RenewAnswer`.
    Renew(Renewal),
}

/// A line that is not done.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is no request.
    #[error("not understood: {0}")]
    NotUnderstood(#[source] serde_json::Error),
    /// It asks for what may not be.
    #[error(transparent)]
    Refused(#[from] RequestFault),
}

/// A request that says what it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// The network lies in no one family.
    #[error("{0} is part of IPv4 and part of IPv6; name one of them")]
    BothFamilies(IpNet),
    /// A ban of no time.
    #[error("a ban lasts at least one second")]
    TooShort,
    /// A ban of more than [`BAN_MAX`].
    #[error("a ban lasts {} hours at most", BAN_MAX.as_secs() / 3600)]
    TooLong,
    /// A ban without a reason.
    #[error("a ban has a reason; say which")]
    NoReason,
    /// A reason of more than [`REASON_MAX`].
    #[error("a reason has {max} bytes at most", max = REASON_MAX)]
    LongReason,
}

impl Request {
    /// Reads one line, and what it says as it may be done: networks written the one way that meets anybody, counts and times
    /// within their bounds, reasons that can be shown.
    ///
    /// # Errors
    /// It is no request, or asks for what may not be.
    pub fn read(line: &str) -> Result<Self, RequestError> {
        let request: Self = serde_json::from_str(line).map_err(RequestError::NotUnderstood)?;
        Ok(match request {
            Self::Ban { network, seconds, reason } => {
                Self::Ban { network: canonical(network)?, seconds: ban_length(seconds)?, reason: ban_reason(&reason)? }
            }
            Self::Unban { network } => Self::Unban { network: canonical(network)? },
            Self::Trace { network, after } => Self::Trace { network: canonical(network)?, after },
            Self::Top { limit } => Self::Top { limit: limit.min(TOP_MAX) },
            Self::Sessions { limit } => Self::Sessions { limit: limit.min(SESSIONS_MAX) },
            other => other,
        })
    }
}

/// IPv4 that is written as IPv6 is IPv4, or the ban would never meet anybody.
fn canonical(network: IpNet) -> Result<IpNet, RequestFault> {
    let IpNet::V6(mapped) = network else { return Ok(network) };
    let Some(ip) = mapped.addr().to_ipv4_mapped() else { return Ok(network) };
    let prefix = mapped.prefix_len().checked_sub(96).ok_or(RequestFault::BothFamilies(network))?;
    Ipv4Net::new(ip, prefix).map(IpNet::V4).map_err(|_| RequestFault::BothFamilies(network))
}

fn ban_length(seconds: u64) -> Result<u64, RequestFault> {
    match seconds {
        0 => Err(RequestFault::TooShort),
        seconds if seconds > BAN_MAX.as_secs() => Err(RequestFault::TooLong),
        seconds => Ok(seconds),
    }
}

/// The reason as it may be shown, which is longer where signs are escaped.
fn ban_reason(reason: &str) -> Result<String, RequestFault> {
    match printable(reason.trim()) {
        reason if reason.is_empty() => Err(RequestFault::NoReason),
        reason if reason.len() > REASON_MAX => Err(RequestFault::LongReason),
        reason => Ok(reason.into_owned()),
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
        assert!(ban_reason(&"\u{7f}".repeat(REASON_MAX / 2)).is_err(), "as it is shown");
        assert!(!ban_reason(" a\u{1b}b ").unwrap().contains(char::is_control));
    }
}
