//! Forwarders that hide clients: a container's userland proxy, a cluster's node, a NAT that masquerades. Whoever comes through
//! one has its address, so what is granted to that address is granted to all of them: the relay confusion, one hop before the
//! gateway. It cannot be seen on the wire; what can be seen are grants that invite it, and that all come from one address.

use std::net::IpAddr;

use ipnet::IpNet;

/// What this host's place in its networks makes of the grants: a sentence for each network that may send out and invites the
/// confusion. `own` are this host's addresses, `routers` its default gateways.
pub fn risky_grants(allowed: &[IpNet], own: &[IpAddr], routers: &[IpAddr]) -> Vec<String> {
    let sentence = |grant: &IpNet| {
        let router = routers.iter().find(|router| grant.contains(*router));
        // What comes from loopback is seldom somebody else's.
        let own = own.iter().find(|ip| grant.contains(*ip) && !ip.is_loopback());
        let is_one_host = grant.prefix_len() == grant.max_prefix_len();
        let holds = match (router, own) {
            (Some(router), _) => format!("holds {router}, this host's default gateway"),
            (None, Some(own)) if is_one_host => format!("is {own}, an address of this host"),
            (None, Some(own)) => format!("holds a network that this host is in, and {own} itself"),
            (None, None) => return None,
        };
        Some(format!(
            "`relay.allowed_networks` has {grant}, which {holds}: whatever forwards connections from there (a container's port \
             forwarding, a NAT that masquerades, a load balancer) makes strangers look like it, and then everybody may relay; \
             name the hosts that send, one by one, and load balancers in `proxy_protocol_from`"
        ))
    };
    allowed.iter().filter_map(sentence).collect()
}

/// Whether an address is of a network that is nobody's on the Internet: whoever comes from it is near, or hidden behind who is.
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback(),
    }
}

/// Most clients come from one private address.
pub fn crowd(address: IpAddr, percent: u32) -> String {
    format!(
        "{percent} % of all clients come from {address}, a private address: if that is a forwarder (a container's port forwarding, a \
         NAT that masquerades, a load balancer), it hides who they are; have it keep their addresses, or speak the PROXY \
         protocol and list it in `proxy_protocol_from`, and do not name it in `relay.allowed_networks`"
    )
}

/// A private address is banned for what sessions from it did.
pub fn banned(network: &impl std::fmt::Display) -> String {
    format!(
        "{network} is banned, a private address: if it is a forwarder, everybody who comes through it is banned with it; have it \
         keep clients' addresses or list it in `proxy_protocol_from`, and `smtp-gateway unban {network}` lets it in again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_that_invite_confusion_are_told() {
        let own = ["127.0.0.1", "172.17.0.2", "192.0.2.2", "fd00::2"].map(|ip| ip.parse().unwrap());
        let routers = ["172.17.0.1".parse().unwrap()];
        for (grant, words) in [
            ("172.17.0.1/32", Some("holds 172.17.0.1, this host's default gateway")),
            ("172.16.0.0/12", Some("holds 172.17.0.1, this host's default gateway")),
            ("192.0.2.0/24", Some("holds a network that this host is in, and 192.0.2.2 itself")),
            ("fd00::/8", Some("holds a network that this host is in, and fd00::2 itself")),
            ("192.0.2.2/32", Some("is 192.0.2.2, an address of this host")),
            ("172.17.0.9/32", None),
            ("192.0.2.64/26", None),
            ("192.168.0.0/16", None),
            ("127.0.0.0/8", None),
        ] {
            let told = risky_grants(&[grant.parse().unwrap()], &own, &routers);
            assert_eq!(told.len(), usize::from(words.is_some()), "{grant}: {told:?}");
            assert!(told.iter().all(|told| told.contains(words.unwrap_or_default())), "{grant}: {told:?}");
        }
    }

    #[test]
    fn private_networks() {
        for (address, private) in [
            ("10.1.2.3", true),
            ("172.17.0.1", true),
            ("192.168.0.1", true),
            ("100.64.0.1", true),
            ("169.254.1.1", true),
            ("127.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("::ffff:10.0.0.1", true),
            ("203.0.113.9", false),
            ("172.32.0.1", false),
            ("100.128.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), private, "{address}");
        }
    }
}
