//! Addresses that cannot come from the Internet: those that nobody has there, and those that are trusted here.

use gateway_common::{Deny, outcome, reason};
use ipnet::IpNet;

/// The registries of special-purpose addresses (RFC 6890 and its successors), multicast, and what is reserved. `::/16` is
/// refused by the program itself.
const BOGONS: [&str; 19] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "100::/64",
    "2001:db8::/32",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// What is dropped on cards that are outside. `trusted` are networks whose hosts may do here what others may not.
pub(super) fn impossible(trusted: &[IpNet]) -> Vec<(IpNet, Deny)> {
    let bogons = BOGONS.iter().filter_map(|text| text.parse().ok());
    let bogons = bogons.filter(|network| !trusted.contains(network));
    let bogons = bogons.map(|network: IpNet| (network, deny(outcome::DROP_BOGON, reason::BOGON)));
    let trusted = trusted.iter().map(|network| (*network, deny(outcome::DROP_SPOOFED, reason::TRUSTED_ADDRESS)));
    bogons.chain(trusted).collect()
}

/// For ever: it is no ban.
fn deny(cause: u32, reason: u32) -> Deny {
    Deny { until_ns: u64::MAX, since_ns: 0, dropped: 0, last_dropped_ns: 0, cause, reason, flags: 0, reserved: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted_is_spoofed_and_no_bogon() {
        let trusted = ["192.168.0.0/16".parse().unwrap(), "203.0.113.8/29".parse().unwrap()];
        let all = impossible(&trusted);
        assert_eq!(all.len(), BOGONS.len() + 1, "every one of them is a network");
        let cause = |text: &str| {
            let network: IpNet = text.parse().unwrap();
            all.iter().find(|(other, _)| *other == network).map(|(_, deny)| deny.cause)
        };
        assert_eq!(cause("192.168.0.0/16"), Some(outcome::DROP_SPOOFED));
        assert_eq!(cause("203.0.113.8/29"), Some(outcome::DROP_SPOOFED));
        assert_eq!(cause("203.0.113.0/24"), Some(outcome::DROP_BOGON));
    }
}
