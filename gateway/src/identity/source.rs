//! What counts as one client where clients are counted: sessions at once, offences, bans, packets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IPv4 address, or an IPv6 /64, of which anybody has 2^64 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// The one that this address belongs to. A v4-mapped IPv6 address is the IPv4 host it stands for.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64)).into(),
            v4 => v4,
        })
    }

    /// All of its addresses: a /32 or a /64.
    pub fn network(self) -> IpNet {
        match self.0 {
            IpAddr::V4(ip) => Ipv4Net::from(ip).into(),
            IpAddr::V6(ip) => Ipv6Net::new_assert(ip, 64).into(),
        }
    }

    /// The networks that are counted with it, the narrowest first, and how many times as much as a source each may do:
    /// itself, and of IPv6 the /56 and the /48 that one subscriber may have been given.
    pub fn breadths(self) -> impl Iterator<Item = (IpNet, u32)> {
        let wider = |ip: Ipv6Addr| {
            [(56, 4), (48, 16)].map(|(length, breadth)| (Ipv6Net::new_assert(ip, length).trunc(), breadth))
        };
        let wider = match self.0 {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(wider(ip)),
        };
        let wider = wider.into_iter().flatten().map(|(network, breadth)| (network.into(), breadth));
        std::iter::once((self.network(), 1)).chain(wider)
    }

    /// Its first address.
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(_) => self.network().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_64() {
        for (address, shown) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1:ffff::2", "2001:db8:0:1::/64"),
            ("::1", "::/64"),
        ] {
            let source = Source::of(address.parse().unwrap());
            assert_eq!(source.to_string(), shown);
            assert!(source.network().contains(&address.parse::<IpAddr>().unwrap().to_canonical()));
        }
    }
}
