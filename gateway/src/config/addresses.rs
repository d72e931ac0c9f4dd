//! Readers of host names, addresses and networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use super::diagnostics::quoted;
use super::read::{Complaint, Read};
use super::values::text;

/// Where a backend listens if nothing else is said, and DNS.
pub(crate) const SMTP_PORT: u16 = 25;
const DNS_PORT: u16 = 53;

/// `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPort {
    /// An IP address with its port: nothing is resolved.
    Address(SocketAddr),
    /// A name to resolve, all its addresses tried in turn.
    Name(String, u16),
}

impl HostPort {
    /// Whether it is certain that it is on this machine.
    pub fn is_on_this_host(&self) -> bool {
        match self {
            Self::Address(address) => address.ip().to_canonical().is_loopback(),
            Self::Name(name, _) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The gateway's own name.
pub(super) fn hostname(value: &DeValue<'_>) -> Read<String> {
    let name = text(value, "mx.example.com")?;
    let complaint =
        |why: &str, mend: &str| Complaint::new(format!("is {}, which is {why}", quoted(name)), format!("write {mend}"));
    if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(complaint("an address", "the gateway's name in DNS, such as `\"mx.example.com\"`"));
    }
    if let Some(bare) = name.strip_suffix('.').filter(|bare| is_host_name(bare)) {
        return Err(complaint("written with a final dot, as SMTP never does", &format!("`\"{bare}\"`")));
    }
    if !name.is_ascii() {
        let ascii = idna::domain_to_ascii(name).ok().filter(|ascii| is_host_name(ascii));
        let mend = ascii.map_or("the name in ASCII letters".to_owned(), |ascii| format!("`\"{ascii}\"`"));
        return Err(complaint("not in ASCII, as a greeting must be", &mend));
    }
    if !is_host_name(name) {
        let mend = "labels of letters, digits and hyphens with dots between them, such as `\"mx.example.com\"`";
        return Err(complaint("no host name", mend));
    }
    Ok(name.to_owned())
}

/// RFC 1123 section 2.1, and not a number at the end, which would make it an address.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        matches!(bytes.len(), 1..=63)
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where the gateway listens.
pub(super) fn listen_address(value: &DeValue<'_>) -> Read<SocketAddr> {
    let text = text(value, "0.0.0.0:25")?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let mend = match text.parse::<IpAddr>() {
            Ok(ip) => format!("write `\"{}\"`", SocketAddr::new(ip, SMTP_PORT)),
            Err(_) => "write an address and a port: `\"0.0.0.0:25\"` for every IPv4 address of this machine, \
                       `\"[::]:25\"` for every IPv6 address"
                .to_owned(),
        };
        return Err(Complaint::new(format!("is {}, which is no address with a port", quoted(text)), mend));
    };
    usable(address, text)?;
    Ok(address)
}

/// Where a backend listens.
pub(super) fn backend_address(value: &DeValue<'_>) -> Read<HostPort> {
    let text = text(value, "192.0.2.25:25")?;
    let address = host_port(text).ok_or_else(|| {
        let mend = if text.parse::<IpAddr>().is_ok() || text.matches(':').count() > 1 {
            "write an IPv6 address in brackets, such as `\"[2001:db8::25]:25\"`"
        } else {
            "write an address or a host name and its port, such as `\"192.0.2.25:25\"` or `\"mail.example.com:25\"`"
        };
        Complaint::new(format!("is {}, which is no address of a mail server", quoted(text)), mend)
    })?;
    match &address {
        HostPort::Address(address) => {
            usable(*address, text)?;
            reachable(*address, text, "the mail server's own address, such as `\"192.0.2.25:25\"`")?;
        }
        HostPort::Name(_, 0) => return Err(port_zero(text)),
        HostPort::Name(..) => {}
    }
    Ok(address)
}

fn host_port(text: &str) -> Option<HostPort> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(HostPort::Address(address));
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(ip) = bracketed {
        return ip.parse().ok().map(|ip: std::net::Ipv6Addr| HostPort::Address((ip, SMTP_PORT).into()));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Some(HostPort::Address((ip, SMTP_PORT).into()));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??),
        None => (text, SMTP_PORT),
    };
    is_service_name(name).then(|| HostPort::Name(name.to_owned(), port))
}

/// The name of SRV records (RFC 2782): `_service._proto.name`.
pub(super) fn srv_name(value: &DeValue<'_>) -> Read<String> {
    const NAME: &str = "_smtp._tcp.example.com";
    let text = text(value, NAME)?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels: Vec<_> = name.splitn(3, '.').collect();
    let is_srv = matches!(labels[..], [service, protocol, _] if service.starts_with('_') && protocol == "_tcp");
    if is_srv && is_service_name(name) {
        return Ok(name.to_owned());
    }
    let mend = format!("write a service, `_tcp` and a domain, such as `\"{NAME}\"`");
    Err(Complaint::new(format!("is {}, which is no name of SRV records", quoted(text)), mend))
}

/// Container networks put underscores into names, and a final dot keeps search domains out.
fn is_service_name(name: &str) -> bool {
    is_host_name(&name.strip_suffix('.').unwrap_or(name).replace('_', "x"))
}

/// One machine's address.
pub(super) fn machine_address(value: &DeValue<'_>) -> Read<IpAddr> {
    let text = text(value, "203.0.113.77")?;
    let usable = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    usable.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).ok_or_else(|| {
        Complaint::new(
            format!("is {}, which is no machine's address", quoted(text)),
            "write an address without port or prefix, such as `\"203.0.113.77\"` or `\"2001:db8::77\"`",
        )
    })
}

/// A resolver; the port may be left out.
pub(super) fn resolver_address(value: &DeValue<'_>) -> Read<SocketAddr> {
    let text = text(value, "192.0.2.53")?;
    let ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = text.parse().or_else(|_| ip.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT)));
    let mend = "the resolver's address, such as `\"192.0.2.53\"` or `\"192.0.2.53:53\"`";
    let address = address.map_err(|_| {
        Complaint::new(format!("is {}, which is no address of a resolver", quoted(text)), format!("write {mend}"))
    })?;
    usable(address, text)?;
    reachable(address, text, mend)?;
    Ok(address)
}

fn usable(address: SocketAddr, text: &str) -> Read<()> {
    if address.port() == 0 {
        return Err(port_zero(text));
    }
    let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
    if plain.ip() != address.ip() {
        let message = format!("is {}, an IPv4 address written as IPv6", quoted(text));
        return Err(Complaint::new(message, format!("write `\"{plain}\"`")));
    }
    if plain.ip().is_multicast() || plain.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
        let message = format!("is {}, where no single machine is", quoted(text));
        return Err(Complaint::new(message, "write the address of one machine"));
    }
    Ok(())
}

fn reachable(address: SocketAddr, text: &str, mend: &str) -> Read<()> {
    if address.ip().is_unspecified() {
        let message = format!("is {}, which is every address and none to connect to", quoted(text));
        return Err(Complaint::new(message, format!("write {mend}")));
    }
    Ok(())
}

fn port_zero(text: &str) -> Complaint {
    Complaint::new(format!("is {}, and there is no port 0", quoted(text)), "write a port from 1 to 65535")
}

/// A network in CIDR notation, without host bits.
pub(super) fn network(value: &DeValue<'_>) -> Read<IpNet> {
    let text = text(value, "192.0.2.0/24")?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        let message = format!("is {}, an address without its prefix length", quoted(text));
        let host = IpNet::from(ip.to_canonical());
        return Err(Complaint::new(message, format!("write `\"{host}\"` for this one address")));
    }
    let network = text.parse::<IpNet>().map_err(|_| {
        Complaint::new(
            format!("is {}, which is no network", quoted(text)),
            "write an address and a prefix length, such as `\"192.0.2.0/24\"` or `\"2001:db8::/32\"`",
        )
    })?;
    if let Some(plain) = unmapped(network) {
        let message = format!("is {}, IPv4 addresses written as IPv6", quoted(text));
        return Err(Complaint::new(message, format!("write `\"{plain}\"`")));
    }
    if network.trunc() != network {
        let message = format!("is {}, which has bits set behind its prefix", quoted(text));
        let (whole, one) = (network.trunc(), IpNet::from(network.addr()));
        return Err(Complaint::new(
            message,
            format!("write `\"{whole}\"` for the whole network, or `\"{one}\"` for the one address"),
        ));
    }
    Ok(network)
}

/// Clients with IPv4 addresses are never seen as IPv6, so a network of such addresses would match nobody.
fn unmapped(network: IpNet) -> Option<IpNet> {
    let IpNet::V6(network) = network else { return None };
    let ip = network.addr().to_ipv4_mapped()?;
    let prefix_len = network.prefix_len().checked_sub(96)?;
    IpNet::new(ip.into(), prefix_len).ok().map(|network| network.trunc())
}
