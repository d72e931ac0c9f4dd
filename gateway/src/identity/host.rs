//! This host's place in its networks: its own addresses, and the routers it sends by.
//!
//! A forwarder before the gateway (a container's proxy, a cluster's node, a router that masquerades) hides who connects:
//! every stranger then comes from the forwarder's address, which is an address of this host or of its router. Whoever lets
//! that address relay lets everybody.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What the kernel says; nothing where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNetworks {
    /// Addresses of this host, loopback among them.
    pub own: Vec<IpAddr>,
    /// Gateways of default routes.
    pub routers: Vec<IpAddr>,
}

/// Whose an address is behind which strangers may be hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarder {
    /// A router's of this host.
    Router,
    /// This host's own.
    Own,
}

impl Forwarder {
    /// As it stands in the middle of a sentence for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Router => "the router of this host",
            Self::Own => "an address of this host",
        }
    }
}

impl HostNetworks {
    /// As it is now. What cannot be read is left out: this is for warnings, and decides nothing.
    pub fn read() -> Self {
        // Not /proc/net: that would be the network of the process's first thread.
        let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        let own = own_v4(&read("fib_trie")).into_iter().chain(own_v6(&read("if_inet6")));
        let routers = routers_v4(&read("route")).into_iter().chain(routers_v6(&read("ipv6_route")));
        Self { own: own.collect(), routers: routers.collect() }
    }

    /// Those addresses within `networks` that a forwarder may show instead of its clients', routers first.
    pub fn forwarders_in(&self, networks: &[IpNet]) -> Vec<(IpAddr, Forwarder)> {
        let listed = |ip: &&IpAddr| networks.iter().any(|network| network.contains(*ip));
        let routers = self.routers.iter().filter(listed).map(|ip| (*ip, Forwarder::Router));
        // A connection from loopback is less likely to be somebody else's.
        let (near, far): (Vec<&IpAddr>, Vec<&IpAddr>) = self.own.iter().filter(listed).partition(|ip| ip.is_loopback());
        routers.chain(far.into_iter().chain(near).map(|ip| (*ip, Forwarder::Own))).collect()
    }
}

/// `|-- 192.0.2.1` followed by `/32 host LOCAL`.
fn own_v4(fib_trie: &str) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<Ipv4Addr>().ok().map(IpAddr::from);
        } else if line == "/32 host LOCAL"
            && let Some(ip) = last
            && !own.contains(&ip)
        {
            own.push(ip);
        }
    }
    own
}

/// `20010db8… index prefix scope flags name`.
fn own_v6(if_inet6: &str) -> Vec<IpAddr> {
    if_inet6.lines().filter_map(|line| hex_v6(line.split_whitespace().next()?)).collect()
}

/// `iface destination gateway flags … mask …`, addresses as the machine's own integers.
fn routers_v4(route: &str) -> Vec<IpAddr> {
    let router = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (destination, gateway) = (words.next()?, words.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        let ip = Ipv4Addr::from(gateway.to_ne_bytes());
        (destination == "00000000" && gateway != 0).then_some(IpAddr::from(ip))
    };
    route.lines().filter_map(router).collect()
}

/// `destination prefix source prefix gateway …`.
fn routers_v6(ipv6_route: &str) -> Vec<IpAddr> {
    let router = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [destination, "00", _, _, gateway, ..] = words[..] else { return None };
        let ip = hex_v6(gateway).filter(|ip| !ip.is_unspecified())?;
        destination.bytes().all(|byte| byte == b'0').then_some(ip)
    };
    ipv6_route.lines().filter_map(router).collect()
}

fn hex_v6(text: &str) -> Option<IpAddr> {
    let bits = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB_TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 192.168.1.0/24 2 0 \
                            2\n        |-- 192.168.1.0\n           /24 link UNICAST\n        |-- 192.168.1.7\n           /32 \
                            host LOCAL\n        |-- 192.168.1.255\n           /32 link BROADCAST\nLocal:\n  |-- 127.0.0.0\n     \
                            /8 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 192.168.1.7\n     /32 host LOCAL\n";
    const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                         eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                         eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
    const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
                            fd000000000000000000000000000007 02 40 00 80     eth0\n";
    const IPV6_ROUTE: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                              fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n\
                              fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                              00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n";

    fn host() -> HostNetworks {
        HostNetworks {
            own: own_v4(FIB_TRIE).into_iter().chain(own_v6(IF_INET6)).collect(),
            routers: routers_v4(ROUTE).into_iter().chain(routers_v6(IPV6_ROUTE)).collect(),
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn what_the_kernel_writes_is_read() {
        let shown = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(shown(&host().own), "192.168.1.7 127.0.0.1 ::1 fd00::7");
        assert_eq!(shown(&host().routers), "192.168.1.1 fd00::1");
    }

    #[test]
    fn this_very_host_has_loopback() {
        assert!(HostNetworks::read().own.contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn who_may_stand_for_others() {
        let found = |networks: &[&str]| {
            let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
            let found = host().forwarders_in(&networks);
            found.iter().map(|(ip, whose)| format!("{ip} {whose:?}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(found(&["192.168.0.0/16"]), "192.168.1.1 Router, 192.168.1.7 Own");
        assert_eq!(found(&["192.168.1.7/32", "127.0.0.0/8"]), "192.168.1.7 Own, 127.0.0.1 Own");
        assert_eq!(found(&["fd00::/64"]), "fd00::1 Router, fd00::7 Own");
        // Machines that send, named one by one, are nobody's forwarder.
        assert_eq!(found(&["192.168.1.31/32", "192.168.2.0/24", "10.0.0.0/8"]), "");
    }
}
