//! Who may never be banned.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::{Config, HostPort};

/// Addresses learned of backends that have names; the oldest go first.
const LEARNED_MAX: usize = 256;

/// Why somebody is never banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// This machine itself.
    Loopback,
    /// `bans.allow` names it.
    Allowed(IpNet),
    /// A backend: its bounces and probes must come through.
    Backend(IpAddr),
    /// A listed load balancer: everybody behind it would be banned.
    LoadBalancer(IpNet),
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("it is this machine itself"),
            Self::Allowed(network) => write!(f, "`bans.allow` names {network}"),
            Self::Backend(address) => write!(f, "{address} is a backend"),
            Self::LoadBalancer(network) => write!(f, "`proxy_protocol_from` lists {network}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Protected {
    /// By the configuration.
    fixed: ArcSwap<Vec<(IpNet, Protection)>>,
    learned: RwLock<Vec<IpAddr>>,
}

/// Who is never banned by what the configuration says.
fn fixed(config: &Config) -> Vec<(IpNet, Protection)> {
    let loopback = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ];
    let mut fixed: Vec<_> = loopback.map(|network| (network, Protection::Loopback)).into();
    fixed.extend(config.bans.allow.iter().map(|&network| (network, Protection::Allowed(network))));
    fixed.extend(config.backends.iter().filter_map(|backend| match backend.address {
        HostPort::Address(address) => {
            let ip = address.ip().to_canonical();
            Some((ip.into(), Protection::Backend(ip)))
        }
        HostPort::Name(..) => None,
    }));
    let balancers = config.listeners.iter().flat_map(|listener| &listener.proxy_protocol_from);
    fixed.extend(balancers.map(|&network| (network, Protection::LoadBalancer(network))));
    fixed
}

impl Protected {
    pub(super) fn new(config: &Config) -> Self {
        Self { fixed: ArcSwap::from_pointee(fixed(config)), learned: RwLock::default() }
    }

    /// Those of another configuration from now on; what was learned stays.
    pub(super) fn configure(&self, config: &Config) {
        self.fixed.store(Arc::new(fixed(config)));
    }

    /// Why nothing in this network may be banned. A network that merely holds somebody protected may: everybody else in it
    /// is then kept out.
    pub(super) fn reason(&self, network: IpNet) -> Option<Protection> {
        let fixed = self.fixed.load();
        let fixed = fixed.iter().find(|(protected, _)| protected.contains(&network));
        fixed.map(|(_, protection)| *protection).or_else(|| {
            let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
            let backend = learned.iter().find(|address| IpNet::from(**address).contains(&network));
            backend.map(|address| Protection::Backend(*address))
        })
    }

    /// Whether this was news.
    pub(super) fn learn(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.reason(address.into()).is_some() {
            return false;
        }
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        if learned.len() >= LEARNED_MAX {
            learned.remove(0);
        }
        learned.push(address);
        true
    }

    pub(super) fn all(&self) -> Vec<(IpNet, Protection)> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        let learned = learned.iter().map(|address| (IpNet::from(*address), Protection::Backend(*address)));
        self.fixed.load().iter().copied().chain(learned).collect()
    }
}
