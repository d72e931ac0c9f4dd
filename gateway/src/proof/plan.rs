//! Which probes a backend gets: for each address family of its clients the questions of the table, put to the address that
//! serves that family.
//!
//! Pure: what must be looked up (the backend's addresses) was looked up before.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, IdentityMode, Listener, ListenerTls, Service};
use crate::identity::host::{Forwarder, HostNetworks};
use crate::route::Routes;

use super::bait::{Bait, baits};
use super::cases::{Case, cases, is_telling};
use super::probe::{Family, ProbeKind};

/// Of one family, how many addresses are tried behind which others may be hidden. One is enough to be open.
const FORWARDERS_MAX: usize = 3;

/// Who strangers are unless the configuration names others: documentation addresses (RFC 5737, RFC 3849), which are nobody's.
const OUTSIDERS: [&str; 5] =
    ["203.0.113.77", "198.51.100.77", "192.0.2.77", "2001:db8:ffff:77::77", "2001:db8:aaaa:77::77"];

/// One question to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Which.
    pub kind: ProbeKind,
    /// To whom: the backend, or the gateway's listener.
    pub server: SocketAddr,
    /// Whom the server is told that the client is.
    pub identity: Option<IpAddr>,
    /// An address of this host to connect from.
    pub bind: Option<IpAddr>,
    /// The listener whose code is run through, by its index in the configuration.
    pub listener: Option<usize>,
    /// Whose the identity is, where strangers may be hidden behind it.
    pub forwarder: Option<Forwarder>,
    /// Whether nobody but users comes that way, who must log in.
    pub for_users: bool,
    /// A local recipient of a route that leads there, where there are routes.
    pub bait: Option<Bait>,
    /// What is tried, controls first.
    pub cases: Vec<&'static Case>,
}

/// All probes for clients of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegPlan {
    /// The clients'.
    pub family: Family,
    /// Whether the backend is told who clients are.
    pub identity: bool,
    /// In order.
    pub probes: Vec<Probe>,
}

/// Plans for the backend with this index, on this host. `addresses` are the backend's, the first of each family; not empty.
pub fn plan(config: &Config, host: &HostNetworks, backend: usize, addresses: &[SocketAddr]) -> Vec<LegPlan> {
    let identity = config.backends[backend].identity.tells();
    let clients = client_families(config, backend);
    let mut legs: Vec<LegPlan> = Vec::new();
    for &family in &clients {
        let Some(&server) = addresses.iter().find(|a| Family::of(a.ip()) == family).or(addresses.first()) else {
            break;
        };
        let mut leg = leg(config, backend, family, server, identity);
        leg.probes.extend(hidden(config, host, backend, family));
        legs.push(leg);
    }
    for &server in addresses {
        // An address that no client's family leads to may be trusted all the same.
        let asked = legs.iter().any(|leg| leg.probes.iter().any(|probe| probe.server == server));
        if !asked && let Some(&family) = clients.first() {
            legs.push(leg(config, backend, family, server, identity));
        }
    }
    legs
}

fn leg(config: &Config, backend: usize, family: Family, server: SocketAddr, identity: bool) -> LegPlan {
    let proof = &config.proof;
    let of_family = |ips: &[IpAddr]| ips.iter().copied().find(|ip| Family::of(*ip) == family);
    let outsider = of_family(&proof.outsiders).or_else(|| stranger(config, family));
    let for_users = is_for_users(config, backend);
    let bait = outsider.and_then(|outsider| bait_of(config, backend, outsider));
    let told = |kind, identity, cases| Probe {
        kind,
        server,
        identity,
        bind: None,
        listener: None,
        forwarder: None,
        for_users,
        bait: bait.clone(),
        cases,
    };
    let mut probes = vec![told(ProbeKind::Naked, None, all())];
    if identity {
        probes.extend(outsider.map(|outsider| told(ProbeKind::Outsider, Some(outsider), all())));
        let trusted = of_family(&proof.trusted);
        probes.extend(trusted.map(|trusted| told(ProbeKind::Trusted, Some(trusted), few(&["H04", "A01"]))));
        let shunned = of_family(&proof.shunned);
        probes.extend(shunned.map(|shunned| told(ProbeKind::Shunned, Some(shunned), few(&["H04"]))));
        // Nobody can hold a connection under an address whose packets go elsewhere.
        let is_claimed = config.backends[backend].identity != IdentityMode::Transparent;
        let spoof = proof.spoof_from.iter().copied().find(|ip| is_claimed && ip.is_ipv4() == server.is_ipv4());
        probes.extend(spoof.zip(outsider).map(|(bind, outsider)| Probe {
            bind: Some(bind),
            ..told(ProbeKind::Spoof, Some(outsider), few(&["H04"]))
        }));
    }
    let doors = |outsider| {
        SERVICES.into_iter().flat_map(move |service| front_doors(config, backend, family, service, outsider))
    };
    probes.extend(outsider.into_iter().flat_map(doors));
    for &bind in proof.front_door_from.iter().filter(|ip| Family::of(**ip) == family) {
        probes.extend(outside(config, backend, bind));
    }
    LegPlan { family, identity, probes }
}

/// The listeners that lead to this backend, by a route or of themselves.
fn listeners(config: &Config, backend: usize) -> impl Iterator<Item = (usize, &Listener)> {
    let pool = config.backends[backend].pool;
    config.listeners.iter().enumerate().filter(move |(index, _)| Routes::new(config, *index).pools().contains(&pool))
}

/// A recipient whose mail comes to this backend from a client at this address.
fn bait_of(config: &Config, backend: usize, client: IpAddr) -> Option<Bait> {
    let pool = config.backends[backend].pool;
    listeners(config, backend).find_map(|(listener, _)| baits(config, listener, pool, client).into_iter().next())
}

/// Whether nobody but users comes to this backend.
fn is_for_users(config: &Config, backend: usize) -> bool {
    let mut services = listeners(config, backend).map(|(_, listener)| listener.service).peekable();
    services.peek().is_some() && services.all(|service| service == Service::Submission)
}

/// Families of clients that can come through this backend's listeners.
fn client_families(config: &Config, backend: usize) -> Vec<Family> {
    let mut families = Vec::new();
    for listener in listeners(config, backend).map(|(_, listener)| listener) {
        let ip = listener.address.ip();
        // A load balancer may bring either, and `[::]` takes both.
        let both = !listener.proxy_protocol_from.is_empty() || (ip.is_ipv6() && ip.is_unspecified());
        families.push(Family::of(ip));
        if both {
            families.extend([Family::V4, Family::V6]);
        }
    }
    families.sort_unstable();
    families.dedup();
    if families.is_empty() {
        // No listener leads to it, but it may be trusting all the same.
        families.push(Family::V4);
    }
    families
}

/// An address that is nobody's, and so neither allowed to relay nor one of ours.
fn stranger(config: &Config, family: Family) -> Option<IpAddr> {
    let candidates = OUTSIDERS.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let allowed = |ip: &IpAddr| config.relay.allowed_networks.iter().any(|network| network.contains(ip));
    candidates.filter(|ip| Family::of(*ip) == family).find(|ip| !allowed(ip))
}

/// Each has doors of its own.
const SERVICES: [Service; 2] = [Service::Mx, Service::Submission];

/// The listener that a client of this family would come to for this, by each route that leads to the backend: by the first all is
/// tried, by the others what tells. Behind one that begins with TLS are the same rules as behind one that offers it, and the
/// proof is a client without TLS.
fn front_doors(
    config: &Config,
    backend: usize,
    family: Family,
    service: Service,
    outsider: IpAddr,
) -> impl Iterator<Item = Probe> {
    let door = front_door(config, backend, family, service, outsider);
    let listener = door.as_ref().and_then(|door| door.listener);
    let pool = config.backends[backend].pool;
    let others = listener.map(|listener| baits(config, listener, pool, outsider)).unwrap_or_default();
    let other = door.clone();
    let others = others.into_iter().skip(1).filter_map(move |bait| {
        let cases = all().into_iter().filter(|case| is_telling(case)).collect();
        Some(Probe { bait: Some(bait), cases, ..other.clone()? })
    });
    door.into_iter().chain(others)
}

/// By the first of these routes.
fn front_door(config: &Config, backend: usize, family: Family, service: Service, outsider: IpAddr) -> Option<Probe> {
    let serves = |address: SocketAddr| Family::of(address.ip()) == family || address.ip().is_unspecified();
    let fits = |listener: &Listener| listener.service == service && listener.tls != ListenerTls::Implicit;
    let own = || listeners(config, backend).filter(move |(_, listener)| fits(listener));
    let (index, listener) = own()
        .find(|(_, listener)| serves(listener.address))
        .or_else(|| own().find(|(_, listener)| !listener.proxy_protocol_from.is_empty()))?;
    Some(Probe {
        kind: ProbeKind::FrontDoor,
        server: listener.address,
        identity: Some(outsider),
        bind: None,
        listener: Some(index),
        forwarder: None,
        for_users: service == Service::Submission,
        bait: baits(config, index, config.backends[backend].pool, outsider).into_iter().next(),
        cases: all(),
    })
}

/// The same as each host that may relay and behind which strangers may be hidden.
fn hidden(config: &Config, host: &HostNetworks, backend: usize, family: Family) -> Vec<Probe> {
    let forwarders = host.forwarders_in(&config.relay.allowed_networks);
    let own = forwarders.into_iter().filter(|(ip, _)| Family::of(*ip) == family).take(FORWARDERS_MAX);
    let probe = |(ip, forwarder)| {
        let door = SERVICES.into_iter().find_map(|service| front_door(config, backend, family, service, ip))?;
        Some(Probe { kind: ProbeKind::Hidden, forwarder: Some(forwarder), cases: few(&["H04", "A01"]), ..door })
    };
    own.filter_map(probe).collect()
}

/// The same over a real socket; load balancers' listeners take nobody else.
fn outside(config: &Config, backend: usize, bind: IpAddr) -> Option<Probe> {
    let own = listeners(config, backend).map(|(_, listener)| listener);
    let fits = |address: &SocketAddr| {
        let ip = address.ip();
        ip.is_ipv4() == bind.is_ipv4() || (ip.is_unspecified() && ip.is_ipv6())
    };
    let address =
        own.filter(|listener| listener.proxy_protocol_from.is_empty()).map(|listener| listener.address).find(fits)?;
    let server = if address.ip().is_unspecified() { SocketAddr::new(bind, address.port()) } else { address };
    Some(Probe {
        kind: ProbeKind::Outside,
        server,
        identity: Some(bind),
        bind: Some(bind),
        listener: None,
        forwarder: None,
        for_users: is_for_users(config, backend),
        bait: bait_of(config, backend, bind),
        cases: all(),
    })
}

/// Every case: the controls first, for what they show is needed to understand the rest, then the telling ones.
fn all() -> Vec<&'static Case> {
    let rank = |case: &&Case| match &*case.id {
        "H04" | "H05" => 0,
        _ if is_telling(case) => 1,
        _ => 2,
    };
    let mut all: Vec<_> = cases().iter().collect();
    all.sort_by_key(rank);
    all
}

fn few(ids: &[&str]) -> Vec<&'static Case> {
    ids.iter().filter_map(|id| cases().iter().find(|case| &*case.id == *id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(listeners: &[&str], identity: &str, more: &str) -> Config {
        let listeners: String =
            listeners.iter().map(|address| format!("[[listener]]\naddress = \"{address}\"\n")).collect();
        let text = format!(
            "[server]\nhostname = \"mx.example.com\"\n{listeners}[[backend]]\naddress = \"10.0.0.25\"\nidentity = \
             \"{identity}\"\n[relay]\nlocal_domains = [\"example.com\"]\n{more}"
        );
        config::parse(&text, "test.toml").unwrap()
    }

    /// `family: kind@server as identity from bind`, a line a probe.
    fn shown(legs: &[LegPlan]) -> Vec<String> {
        let mut lines = Vec::new();
        for leg in legs {
            for Probe { kind, server, identity, bind, bait, cases, .. } in &leg.probes {
                let mut line = format!("{}: {} {server}", leg.family, kind.as_str());
                line.extend(identity.map(|identity| format!(" as {identity}")));
                line.extend(bind.map(|bind| format!(" from {bind}")));
                line.extend(bait.as_ref().map(|bait| format!(" for {} by {}", bait.domain, bait.route)));
                lines.push(format!("{line} ({})", cases.len()));
            }
        }
        lines
    }

    fn host() -> HostNetworks {
        HostNetworks {
            own: vec!["192.168.1.7".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            routers: vec!["192.168.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    fn check(config: &Config, addresses: &[&str], expected: &[&str]) {
        let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(shown(&plan(config, &host(), 0, &addresses)), expected);
    }

    #[test]
    fn one_family() {
        check(
            &config(&["0.0.0.0:25"], "xclient", ""),
            &["10.0.0.25:25"],
            &[
                "IPv4: naked 10.0.0.25:25 (79)",
                "IPv4: outsider 10.0.0.25:25 as 203.0.113.77 (79)",
                "IPv4: front door 0.0.0.0:25 as 203.0.113.77 (79)",
            ],
        );
    }

    #[test]
    fn clients_of_both_families_before_a_backend_of_one() {
        check(
            &config(&["[::]:25"], "proxy-v2", ""),
            &["10.0.0.25:25"],
            &[
                "IPv4: naked 10.0.0.25:25 (79)",
                "IPv4: outsider 10.0.0.25:25 as 203.0.113.77 (79)",
                "IPv4: front door [::]:25 as 203.0.113.77 (79)",
                "IPv6: naked 10.0.0.25:25 (79)",
                "IPv6: outsider 10.0.0.25:25 as 2001:db8:ffff:77::77 (79)",
                "IPv6: front door [::]:25 as 2001:db8:ffff:77::77 (79)",
            ],
        );
    }

    #[test]
    fn each_family_is_put_to_its_own_address() {
        let config = config(&["192.0.2.1:25", "[2001:db8::1]:25"], "none", "");
        check(
            &config,
            &["10.0.0.25:25", "[fd00::25]:25"],
            &[
                "IPv4: naked 10.0.0.25:25 (79)",
                "IPv4: front door 192.0.2.1:25 as 203.0.113.77 (79)",
                "IPv6: naked [fd00::25]:25 (79)",
                "IPv6: front door [2001:db8::1]:25 as 2001:db8:ffff:77::77 (79)",
            ],
        );
    }

    #[test]
    fn an_address_without_clients_is_asked_too() {
        let legs = plan(
            &config(&["192.0.2.1:25"], "none", ""),
            &host(),
            0,
            &["10.0.0.25:25".parse().unwrap(), "[fd00::25]:25".parse().unwrap()],
        );
        assert_eq!(shown(&legs)[2], "IPv4: naked [fd00::25]:25 (79)");
    }

    #[test]
    fn what_is_asked_for_comes_too() {
        let more = "allowed_networks = [\"203.0.113.0/24\"]\n[proof]\ntrusted = [\"10.1.1.1\"]\nshunned = \
                    [\"10.1.1.2\"]\nspoof_from = [\"10.0.0.9\"]\nfront_door_from = [\"198.51.100.9\", \"2001:db8::9\"]";
        check(
            &config(&["0.0.0.0:2525"], "xclient", more),
            &["10.0.0.25:25"],
            &[
                "IPv4: naked 10.0.0.25:25 (79)",
                "IPv4: outsider 10.0.0.25:25 as 198.51.100.77 (79)",
                "IPv4: trusted 10.0.0.25:25 as 10.1.1.1 (2)",
                "IPv4: shunned 10.0.0.25:25 as 10.1.1.2 (1)",
                "IPv4: spoof 10.0.0.25:25 as 198.51.100.77 from 10.0.0.9 (1)",
                "IPv4: front door 0.0.0.0:2525 as 198.51.100.77 (79)",
                "IPv4: outside 198.51.100.9:2525 as 198.51.100.9 from 198.51.100.9 (79)",
            ],
        );
    }

    #[test]
    fn users_have_a_door_of_their_own() {
        let mut config = config(&["192.0.2.1:25", "192.0.2.1:587", "192.0.2.1:465"], "none", "");
        for (index, tls) in [(1, ListenerTls::StartTls), (2, ListenerTls::Implicit)] {
            (config.listeners[index].service, config.listeners[index].tls) = (Service::Submission, tls);
        }
        check(
            &config,
            &["10.0.0.25:25"],
            &[
                "IPv4: naked 10.0.0.25:25 (79)",
                "IPv4: front door 192.0.2.1:25 as 203.0.113.77 (79)",
                "IPv4: front door 192.0.2.1:587 as 203.0.113.77 (79)",
            ],
        );
    }

    #[test]
    fn whoever_may_relay_and_may_stand_for_others_is_tried() {
        let more = "allowed_networks = [\"192.168.0.0/16\", \"fd00::/64\"]";
        check(
            &config(&["0.0.0.0:25"], "none", more),
            &["10.0.0.25:25"],
            &[
                "IPv4: naked 10.0.0.25:25 (79)",
                "IPv4: front door 0.0.0.0:25 as 203.0.113.77 (79)",
                "IPv4: hidden 0.0.0.0:25 as 192.168.1.1 (2)",
                "IPv4: hidden 0.0.0.0:25 as 192.168.1.7 (2)",
            ],
        );
    }

    #[test]
    fn a_door_is_tried_by_each_route() {
        let second = "[[backend]]\nname = \"second\"\naddress = \"10.0.0.26\"\n";
        let route = |name| {
            format!(
                "[[route]]\nname = \"{name}\"\nrecipients = [\"{name}.test\"]\nlocal = true\nbackend = \"second\"\n"
            )
        };
        let config = config(&["0.0.0.0:25"], "xclient", &[second, &route("a"), &route("b")].concat());
        check(
            &config,
            &["10.0.0.25:25"],
            &[
                "IPv4: naked 10.0.0.25:25 for example.com by none (79)",
                "IPv4: outsider 10.0.0.25:25 as 203.0.113.77 for example.com by none (79)",
                "IPv4: front door 0.0.0.0:25 as 203.0.113.77 for example.com by none (79)",
            ],
        );
        let legs = plan(&config, &host(), 1, &["10.0.0.26:25".parse().unwrap()]);
        assert_eq!(
            shown(&legs),
            [
                "IPv4: naked 10.0.0.26:25 for a.test by a (79)",
                "IPv4: outsider 10.0.0.26:25 as 203.0.113.77 for a.test by a (79)",
                "IPv4: front door 0.0.0.0:25 as 203.0.113.77 for a.test by a (79)",
                "IPv4: front door 0.0.0.0:25 as 203.0.113.77 for b.test by b (10)",
            ]
        );
    }

    #[test]
    fn controls_come_first() {
        let ids: Vec<_> = all().iter().take(11).map(|case| &*case.id).collect();
        assert_eq!(ids, ["H04", "H05", "A01", "A02", "A04", "A09", "B01", "C01", "E01", "F01", "A03"]);
        assert_eq!(all().len(), 79);
    }
}
