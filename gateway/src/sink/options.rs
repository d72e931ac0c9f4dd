//! What a sink can be told, and the defaults: a stranger to everybody, on loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::event::Observer;
use super::fault::Fault;

/// How a sink is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 lets the system choose, and [`Sink::address`](super::Sink::address) tells.
    pub listen: SocketAddr,
    /// Its name in banner and EHLO reply.
    pub hostname: String,
    /// How it is told who the client is.
    pub identity: SinkIdentity,
    /// Networks whose clients may relay; judged by the client it believes in, as a mail server does.
    pub trust: Vec<IpNet>,
    /// Networks that may use XCLIENT. Default: loopback.
    pub xclient_from: Vec<IpNet>,
    /// Domains it takes mail for from everybody.
    pub local_domains: Vec<String>,
    /// A Maildir to keep messages in; made if it is not there.
    pub maildir: Option<PathBuf>,
    /// Print nothing.
    pub quiet: bool,
    /// Print messages only.
    pub messages_only: bool,
    /// How it errs.
    pub faults: Vec<Fault>,
    /// Threads. Default, and the meaning of 0: one per core.
    pub workers: usize,
    /// Who else is told of what happens.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2526)),
            hostname: "sink.localhost".into(),
            identity: SinkIdentity::None,
            trust: Vec::new(),
            xclient_from: loopback(),
            local_domains: Vec::new(),
            maildir: None,
            quiet: false,
            messages_only: false,
            faults: Vec::new(),
            workers: 0,
            observer: None,
        }
    }
}

fn loopback() -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    vec![v4.into(), Ipv6Net::from(Ipv6Addr::LOCALHOST).into()]
}

/// How a sink is told who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkIdentity {
    /// XCLIENT is offered to `xclient_from`; without it the client is the peer.
    Xclient,
    /// A PROXY header of version 1 is required.
    ProxyV1,
    /// A PROXY header of version 2 is required.
    ProxyV2,
    /// A PROXY header of either version is required.
    Proxy,
    /// Not at all: the client is the peer.
    None,
}

impl FromStr for SinkIdentity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "xclient" => Ok(Self::Xclient),
            "proxy-v1" => Ok(Self::ProxyV1),
            "proxy-v2" => Ok(Self::ProxyV2),
            "proxy" => Ok(Self::Proxy),
            "none" => Ok(Self::None),
            _ => Err(format!("\"{text}\" is no identity: write xclient, proxy-v1, proxy-v2, proxy or none")),
        }
    }
}

/// Reads a network; a plain address means that address alone.
///
/// # Errors
/// A sentence for the command line.
pub fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("\"{text}\" is no network: write an address or a prefix such as 192.0.2.0/24"))
}
