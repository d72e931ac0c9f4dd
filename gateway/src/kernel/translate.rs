//! Bans in the kernel side's words, and back: the one place that knows causes by name.

use std::sync::atomic::AtomicU64;

use gateway_common::{Deny, reason};
use ipnet::IpNet;

use crate::policy::bans::{Ban, Cause};
use crate::policy::offences::Offence;

use super::time::millis_of;

/// The number that a ban carries in the kernel.
pub(super) fn reason_of(cause: Cause) -> u32 {
    match cause {
        Cause::Administrator => reason::MANUAL,
        Cause::Offences(Offence::RelayAttempt | Offence::UnknownRecipients) => reason::RELAY_ATTEMPTS,
        Cause::Offences(Offence::AuthFailure) => reason::AUTH_FAILURES,
        Cause::Offences(Offence::TooManyErrors) => reason::TOO_MANY_ERRORS,
        Cause::Offences(Offence::EarlyTalk) => reason::EARLY_TALK,
        Cause::Offences(
            Offence::SmugglingAttempt | Offence::IdentityClaim | Offence::TooManyCommands | Offence::Flood,
        ) => reason::PROTOCOL_ABUSE,
    }
}

/// What is left of a ban when only the kernel remembers it: who, until when, and the number for why.
pub(super) fn ban_of(network: IpNet, deny: &Deny) -> Ban {
    let cause = match deny.reason {
        reason::RELAY_ATTEMPTS => Cause::Offences(Offence::RelayAttempt),
        reason::AUTH_FAILURES => Cause::Offences(Offence::AuthFailure),
        reason::TOO_MANY_ERRORS => Cause::Offences(Offence::TooManyErrors),
        reason::EARLY_TALK => Cause::Offences(Offence::EarlyTalk),
        reason::PROTOCOL_ABUSE | reason::MIXED => Cause::Offences(Offence::Flood),
        _ => Cause::Administrator,
    };
    Ban {
        network,
        cause,
        reason: format!("{} (before a restart)", reason::name(deny.reason).replace('_', " ")).into(),
        since: millis_of(deny.since_ns),
        until: millis_of(deny.until_ns),
        in_kernel: true,
        refused: AtomicU64::new(0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::time::ns_of;
    use super::*;
    use crate::time::clock::now;

    #[test]
    fn a_ban_survives_the_kernel() {
        let network: IpNet = "192.0.2.1/32".parse().unwrap();
        let causes = Offence::ALL.map(Cause::Offences);
        for cause in causes.into_iter().chain([Cause::Administrator]) {
            let ban = Ban::new(network, cause, "why", now(), Duration::from_secs(60), true);
            let deny = Deny {
                until_ns: ns_of(ban.until),
                since_ns: ns_of(ban.since),
                dropped: 3,
                last_dropped_ns: 0,
                cause: 16,
                reason: reason_of(cause),
                flags: 0,
                reserved: 0,
            };
            let back = ban_of(network, &deny);
            assert_eq!((back.network, back.since, back.until), (ban.network, ban.since, ban.until));
            assert_eq!(reason_of(back.cause), deny.reason);
        }
    }
}
