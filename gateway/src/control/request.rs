//! What a running gateway can be asked: the words between both ends of the control socket.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Renewal;

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
    /// For a `RenewAnswer`.
    Renew(Renewal),
}
