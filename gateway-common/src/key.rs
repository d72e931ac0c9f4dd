//! Who a packet is from, as the maps count it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address or an IPv6 /64, in eight bytes: an IPv6 /64 is its own first half, an IPv4 address is
/// `0000:ffff:a.b.c.d`, which lies in `::/16` where no IPv6 source can be. Half the key is half the cost of the hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct SourceKey(pub [u8; 8]);

impl SourceKey {
    /// The key of an IPv4 address.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The key of the /64 of an IPv6 address. Addresses in `::/16` are nobody's, and have none.
    #[inline(always)]
    pub const fn v6([a, b, c, d, e, f, g, h, ..]: [u8; 16]) -> Option<Self> {
        if a == 0 && b == 0 {
            return None;
        }
        Some(Self([a, b, c, d, e, f, g, h]))
    }

    /// The key of an address; IPv4 in IPv6's clothes (`::ffff:a.b.c.d`) is IPv4.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(Self::v4(address.octets())),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => Some(Self::v4(address.octets())),
                None => Self::v6(address.octets()),
            },
        }
    }

    /// The address, or the first address of the /64.
    pub const fn address(self) -> IpAddr {
        let [a, b, c, d, e, f, g, h] = self.0;
        if a == 0 && b == 0 {
            IpAddr::V4(Ipv4Addr::new(e, f, g, h))
        } else {
            let mut octets = [0; 16];
            let (upper, _) = octets.split_at_mut(8);
            upper.copy_from_slice(&[a, b, c, d, e, f, g, h]);
            IpAddr::V6(Ipv6Addr::from_octets(octets))
        }
    }

    /// How long a prefix it stands for: 32 or 64.
    pub const fn prefix_length(self) -> u8 {
        if self.0[0] == 0 && self.0[1] == 0 { 32 } else { 64 }
    }

    /// As one word, for hashing.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_keys_and_come_back() {
        let table = [
            ("192.0.2.1", Some(("192.0.2.1", 32))),
            ("::ffff:192.0.2.1", Some(("192.0.2.1", 32))),
            ("2001:db8:1:2:3:4:5:6", Some(("2001:db8:1:2::", 64))),
            ("::1", None),
            ("0:ffff:c000:201::", None),
        ];
        for (address, expect) in table {
            let key = SourceKey::of(address.parse().unwrap());
            let shown = key.map(|key| (key.address(), key.prefix_length()));
            assert_eq!(shown, expect.map(|(first, length)| (first.parse().unwrap(), length)), "{address}");
        }
    }
}
