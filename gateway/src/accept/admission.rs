//! How many sessions there may be: all together, and from one client.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ipnet::Ipv6Net;

use crate::config::Limits;
use crate::drive::Shortage;
use crate::identity::{ClientAddr, PeerAddr, Source};
use crate::observe::refusals::RefusalCause;
use crate::policy::handshakes::HandshakeLimit;

use super::crowd::Crowd;

/// The book of open sessions, shared by all workers.
#[derive(Debug)]
pub struct Admission {
    sessions: AtomicUsize,
    sessions_max: AtomicUsize,
    clients: DashMap<Source, Open>,
    /// Sessions of the wider networks around IPv6 clients: whoever has a /48 has 65,536 sources.
    wide: DashMap<Ipv6Net, usize>,
    /// Connections of load balancers.
    balancers: DashMap<Source, usize>,
    per_client_max: AtomicUsize,
    shortage: Arc<Shortage>,
    crowd: Crowd,
    handshakes_max: AtomicU32,
    /// Once a listener speaks TLS.
    handshakes: OnceLock<Arc<HandshakeLimit>>,
}

/// Networks around an IPv6 client that have a share of their own, by their prefix, and how many clients' share that is: a
/// site's, and a provider's customer's.
const WIDE: [(u8, usize); 2] = [(56, 4), (48, 16)];

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `limits.sessions` is reached.
    Full,
    /// `limits.sessions_per_client` is reached.
    ClientFull,
    /// The share of the /56 or /48 around the client is used up.
    NetworkFull,
    /// The client is banned.
    Banned,
}

/// How many sessions a client has.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    direct: usize,
    proxied: usize,
}

/// One of the gateway's sessions; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    book: Arc<Admission>,
    /// Few have one.
    balancer: Option<Box<Source>>,
}

/// One of a client's sessions; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    book: Arc<Admission>,
    source: Source,
    proxied: bool,
}

impl Refusal {
    /// What it is counted as.
    pub(super) fn cause(self) -> RefusalCause {
        match self {
            Self::Full => RefusalCause::Sessions,
            Self::ClientFull | Self::NetworkFull => RefusalCause::SessionsPerClient,
            Self::Banned => RefusalCause::Banned,
        }
    }

    /// The reply, and the end.
    pub(super) fn reply(self) -> &'static [u8] {
        match self {
            Self::Full => b"421 4.3.2 Too many sessions, try again later\r\n",
            Self::ClientFull => b"421 4.7.0 Too many sessions from your address, try again later\r\n",
            Self::NetworkFull => b"421 4.7.0 Too many sessions from your network, try again later\r\n",
            // Not silence: whoever is banned by mistake must be able to find out.
            Self::Banned => b"421 4.7.1 Your address is banned for a while\r\n",
        }
    }
}

impl Admission {
    /// With nobody in. `shortage` is told when places run out.
    pub fn new(limits: &Limits, shortage: Arc<Shortage>) -> Self {
        Self {
            sessions: AtomicUsize::new(0),
            sessions_max: AtomicUsize::new(limits.sessions),
            clients: DashMap::new(),
            wide: DashMap::new(),
            balancers: DashMap::new(),
            per_client_max: AtomicUsize::new(limits.sessions_per_client),
            shortage,
            crowd: Crowd::default(),
            handshakes_max: AtomicU32::new(limits.handshakes_per_client),
            handshakes: OnceLock::new(),
        }
    }

    /// Other limits from now on; whoever is in stays.
    pub fn set_limits(&self, limits: &Limits) {
        self.sessions_max.store(limits.sessions, Ordering::Relaxed);
        self.per_client_max.store(limits.sessions_per_client, Ordering::Relaxed);
        self.handshakes_max.store(limits.handshakes_per_client, Ordering::Relaxed);
        if let Some(handshakes) = self.handshakes.get() {
            handshakes.allow(limits.handshakes_per_client);
        }
        self.judge_shortage(self.sessions());
    }

    /// The private address that most clients come from, and their share in percent.
    pub fn crowd(&self) -> Option<(IpAddr, u32)> {
        self.crowd.one()
    }

    /// Whether places are short, for the sessions that hold them.
    pub fn shortage(&self) -> &Arc<Shortage> {
        &self.shortage
    }

    /// How many TLS handshakes a source may begin.
    pub fn handshakes(&self) -> &Arc<HandshakeLimit> {
        let allowed = self.handshakes_max.load(Ordering::Relaxed);
        self.handshakes.get_or_init(|| Arc::new(HandshakeLimit::new(allowed)))
    }

    /// Short from seven eighths on, until they are three quarters.
    fn judge_shortage(&self, sessions: usize) {
        let most = self.sessions_max.load(Ordering::Relaxed);
        let short = sessions >= most - most / 8;
        if short != self.shortage.is_short() && (short || sessions < most - most / 4) {
            self.shortage.set(short);
        }
    }

    /// What the network of this prefix may have: the share of so many clients, but of all places no more than a quarter.
    fn wide_max(&self, clients: usize) -> usize {
        let one = self.per_client_max.load(Ordering::Relaxed);
        (one.saturating_mul(clients)).min(self.sessions_max.load(Ordering::Relaxed) / 4).max(one)
    }

    /// Sessions and connections that may become one.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Clients with sessions, and how many each has; in no order.
    pub fn clients(&self) -> Vec<(Source, usize)> {
        self.clients.iter().map(|open| (*open.key(), open.sum())).collect()
    }

    /// Connections that this source holds itself: a client's own, or a load balancer's for others.
    pub fn connections_of(&self, source: Source) -> usize {
        let direct = self.clients.get(&source).map_or(0, |open| open.direct);
        direct + self.balancers.get(&source).map_or(0, |open| *open)
    }

    /// A slot for a connection; one of a load balancer's is for a client that is not known yet.
    pub(super) fn slot(self: &Arc<Self>, balancer: Option<PeerAddr>) -> Result<Slot, Refusal> {
        let balancer = balancer.map(|balancer| Source::of(balancer.ip()));
        if let Some(balancer) = balancer {
            *self.balancers.entry(balancer).or_default() += 1;
        }
        // Taken first and checked then: two workers may both be refused at the limit, but none can pass it.
        let slot = Slot { book: self.clone(), balancer: balancer.map(Box::new) };
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        self.judge_shortage(before + 1);
        if before >= self.sessions_max.load(Ordering::Relaxed) {
            return Err(Refusal::Full);
        }
        Ok(slot)
    }

    /// A place among the client's sessions.
    pub(super) fn share(self: &Arc<Self>, client: ClientAddr, proxied: bool) -> Result<Share, Refusal> {
        if !proxied {
            self.crowd.count(client.ip());
        }
        let source = Source::of(client.ip());
        let mut open = self.clients.entry(source).or_default();
        if open.sum() >= self.per_client_max.load(Ordering::Relaxed) {
            return Err(Refusal::ClientFull);
        }
        *open.via(proxied) += 1;
        drop(open);
        // Taken first and checked then, as slots are; given back with the share.
        let share = Share { book: self.clone(), source, proxied };
        let mut fits = true;
        for (network, clients) in wide_networks(source) {
            let mut sessions = self.wide.entry(network).or_default();
            *sessions += 1;
            fits &= *sessions <= self.wide_max(clients);
        }
        if fits { Ok(share) } else { Err(Refusal::NetworkFull) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Self { book, balancer } = self;
        let before = book.sessions.fetch_sub(1, Ordering::Relaxed);
        book.judge_shortage(before.saturating_sub(1));
        if let Some(Entry::Occupied(mut open)) = balancer.as_ref().map(|balancer| book.balancers.entry(**balancer)) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        for (network, _) in wide_networks(self.source) {
            if let Entry::Occupied(mut sessions) = self.book.wide.entry(network) {
                *sessions.get_mut() -= 1;
                if *sessions.get() == 0 {
                    sessions.remove();
                }
            }
        }
        if let Entry::Occupied(mut open) = self.book.clients.entry(self.source) {
            *open.get_mut().via(self.proxied) -= 1;
            if open.get().sum() == 0 {
                open.remove();
            }
        }
    }
}

/// The networks of [`WIDE`] around a source, and how many clients' share each has; none around IPv4.
fn wide_networks(source: Source) -> impl Iterator<Item = (Ipv6Net, usize)> {
    let ip = match source.ip() {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    };
    WIDE.into_iter().filter_map(move |(prefix, clients)| Some((Ipv6Net::new_assert(ip?, prefix).trunc(), clients)))
}

impl Open {
    fn sum(self) -> usize {
        self.direct + self.proxied
    }

    fn via(&mut self, proxied: bool) -> &mut usize {
        if proxied { &mut self.proxied } else { &mut self.direct }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> ClientAddr {
        ClientAddr::direct(PeerAddr::from_socket((ip.parse::<IpAddr>().unwrap(), 4711).into()))
    }

    fn book(sessions: usize, sessions_per_client: usize) -> Arc<Admission> {
        Arc::new(Admission::new(&Limits { sessions, sessions_per_client, ..Limits::default() }, Arc::default()))
    }

    #[test]
    fn slots_are_given_back() {
        let book = book(2, 9);
        let (first, _second) = (book.slot(None).unwrap(), book.slot(None).unwrap());
        assert_eq!(book.slot(None).unwrap_err(), Refusal::Full);
        assert_eq!(book.sessions(), 2);
        drop(first);
        assert!(book.slot(None).is_ok());
    }

    #[test]
    fn a_client_is_an_address_or_a_64() {
        let book = book(9, 1);
        let held = book.share(client("2001:db8:0:1::1"), false).unwrap();
        assert_eq!(book.share(client("2001:db8:0:1:ffff::2"), false).unwrap_err(), Refusal::ClientFull);
        assert!(book.share(client("2001:db8:0:2::1"), false).is_ok());
        let _v4 = book.share(client("192.0.2.1"), false).unwrap();
        assert_eq!(book.share(client("::ffff:192.0.2.1"), false).unwrap_err(), Refusal::ClientFull);
        assert!(book.share(client("192.0.2.2"), false).is_ok());
        drop(held);
        assert!(book.share(client("2001:db8:0:1::1"), false).is_ok());
    }

    /// Every /64 of one /48 comes: no place is left for others unless the /48 has a share of its own.
    #[test]
    fn a_wide_network_has_a_share_of_its_own() {
        let book = book(20_000, 100);
        let mut shares = Vec::new();
        for number in 0..20_000_u32 {
            let [_, _, high, low] = (number % 256).to_be_bytes();
            let client = client(&format!("2001:db8:1:{:x}::{:x}", u16::from_be_bytes([high, low]), number + 1));
            shares.extend(book.share(client, false));
        }
        assert_eq!(shares.len(), 4 * 100, "one /56");
        for number in 0..20_000_u32 {
            let client = client(&format!("2001:db8:1:{:x}00::{:x}", number % 256, number + 1));
            shares.extend(book.share(client, false));
        }
        assert_eq!(shares.len(), 16 * 100, "the /48 around it");
        assert_eq!(book.share(client("2001:db8:1:5500::1"), false).unwrap_err(), Refusal::NetworkFull);
        assert!(book.share(client("2001:db8:2::1"), false).is_ok());
        shares.clear();
        assert!(book.wide.is_empty() && book.clients.is_empty());
    }

    #[test]
    fn places_run_short_before_they_run_out() {
        let book = book(16, 16);
        let mut slots: Vec<_> = (0..13).map(|_| book.slot(None).unwrap()).collect();
        assert!(!book.shortage().is_short());
        slots.push(book.slot(None).unwrap());
        assert!(book.shortage().is_short());
        slots.truncate(12);
        assert!(book.shortage().is_short(), "not back and forth");
        slots.truncate(11);
        assert!(!book.shortage().is_short());
        book.set_limits(&Limits { sessions: 11, ..Limits::default() });
        assert!(book.shortage().is_short() && book.slot(None).is_err());
    }

    #[test]
    fn a_client_that_left_leaves_nothing_behind() {
        let book = book(9, 3);
        drop([book.share(client("192.0.2.1"), false).unwrap(), book.share(client("192.0.2.1"), false).unwrap()]);
        assert!(book.clients.is_empty());
    }

    #[test]
    fn a_load_balancer_holds_its_clients_connections() {
        let book = book(9, 2);
        let balancer = PeerAddr::from_socket(([10, 0, 0, 1], 4711).into());
        let (balancers, own) = (Source::of(balancer.ip()), Source::of([192, 0, 2, 1].into()));
        let slot = book.slot(Some(balancer)).unwrap();
        let proxied = book.share(client("192.0.2.1"), true).unwrap();
        let direct = book.share(client("192.0.2.1"), false).unwrap();
        assert_eq!(book.share(client("192.0.2.1"), false).unwrap_err(), Refusal::ClientFull);
        assert_eq!((book.connections_of(balancers), book.connections_of(own)), (1, 1));
        assert_eq!(book.clients(), [(own, 2)]);
        drop((slot, proxied, direct));
        assert_eq!((book.connections_of(balancers), book.connections_of(own)), (0, 0));
        assert!(book.clients.is_empty() && book.balancers.is_empty());
    }
}
