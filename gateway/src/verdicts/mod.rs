//! Verdicts: the offences that sessions see become bans, and bans keep connections out.
//!
//! One room for all workers. Two pure parts do the thinking, [`Reputation`] and [`BanBook`]; this room holds the locks, knows
//! who may never be banned, and tells the log. What every connection asks, whether it is banned, costs one atomic load
//! while nobody is, and a read lock otherwise; the reputation's lock is taken only when a client misbehaved.
//!
//! Must not know: sockets, sessions, what a kernel is. The time is handed in.
//!
//! Invariant: every ban has a reason and an end.
//! Invariant: loopback, `bans.allow`, backends and listed load balancers are let in whatever the book says.

mod ban_error;
mod ban_view;
mod follow;
mod protected;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracing::{info, warn};

use crate::config::Config;
use crate::identity::host::{Forwarder, HostNetworks};
use crate::identity::{ClientAddr, PeerAddr, Source};
use crate::observe::events::{self, EventKind};
use crate::policy::bans::{Ban, BanBook, Cause, Full};
use crate::policy::offences::Offence;
use crate::policy::refused_domains::{RefusedDomain, RefusedDomains};
use crate::policy::reputation::{BanDue, Reputation, ReputationState};
use crate::time::Millis;

pub use ban_error::BanError;
pub use ban_view::{BanView, Shown};
pub use follow::{Change, Changes};
pub use protected::Protection;

use ban_error::{PREFIX_MIN_V4, PREFIX_MIN_V6};
use follow::Follower;
use protected::Protected;

/// Offences in, bans out.
#[derive(Debug)]
pub struct Verdicts {
    enabled: AtomicBool,
    /// Hosts that may send out: banned by hand only, for their offences are mostly their users' mistakes.
    trusted: ArcSwap<Vec<IpNet>>,
    protected: Protected,
    /// Addresses of this host and its routers, behind which a forwarder may hide everybody: told of, and banned by hand only.
    forwarders: Box<[(IpAddr, Forwarder)]>,
    reputation: Mutex<Reputation>,
    /// Hashes login names.
    names: RandomState,
    refused_domains: Mutex<RefusedDomains>,
    book: RwLock<BanBook>,
    /// Bans in the book.
    entries: AtomicUsize,
    follower: Follower,
    /// Grows with each change of the book.
    revision: AtomicU64,
}

/// Whose offences ban nobody: hosts that may send out, and addresses of this host from which the relay proof tries, as
/// strangers do, what strangers are banned for.
fn trusted(config: &Config) -> Vec<IpNet> {
    let probers = config.proof.front_door_from.iter().map(|ip| IpNet::from(*ip));
    config.relay.allowed_networks.iter().copied().chain(probers).collect()
}

impl Verdicts {
    /// Nobody is banned. `networks` are those of this host.
    pub fn new(config: &Config, networks: &HostNetworks) -> Self {
        Self {
            enabled: AtomicBool::new(config.bans.enabled),
            trusted: ArcSwap::from_pointee(trusted(config)),
            protected: Protected::new(config),
            forwarders: networks.forwarders_in(&[IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()]).into(),
            reputation: Mutex::new(Reputation::new(&config.bans)),
            names: RandomState::new(),
            refused_domains: Mutex::default(),
            book: RwLock::default(),
            entries: AtomicUsize::new(0),
            follower: Follower::default(),
            revision: AtomicU64::new(0),
        }
    }

    /// Judges by another configuration from now on. Bans in force stay, and what is on whom.
    pub fn configure(&self, config: &Config) {
        self.enabled.store(config.bans.enabled, Ordering::Relaxed);
        self.trusted.store(Arc::new(trusted(config)));
        self.protected.configure(config);
        self.reputation().set_rules(&config.bans);
        for (network, _) in self.protected.all() {
            if network.prefix_len() == network.max_prefix_len() {
                self.follower.tell(Change::Protected(network.addr()));
            }
        }
    }

    /// Whether a connection of this address is to be refused, which then counts for the ban.
    pub fn refuses(&self, ip: IpAddr, now: Millis) -> bool {
        if self.entries.load(Ordering::Acquire) == 0 {
            return false;
        }
        let book = self.read();
        let Some(ban) = book.find(ip, now) else { return false };
        if self.protected.reason(ip.into()).is_some() {
            return false;
        }
        ban.count_refused();
        true
    }

    /// A session saw an offence. Sessions that the client has already go on; its next connection is refused.
    pub fn charge(&self, client: ClientAddr, peer: PeerAddr, offence: Offence, now: Millis) {
        self.charge_by(client, peer, now, |reputation, source| reputation.charge(source, offence, now));
    }

    /// A session's password was refused, for this name if it had one. The hash has a key of its own, so that nobody can find
    /// names that look like one.
    pub fn charge_password(&self, client: ClientAddr, peer: PeerAddr, name: Option<&str>, now: Millis) {
        let Some(name) = name else { return self.charge(client, peer, Offence::AuthFailure, now) };
        let [hash @ .., _, _, _, _] = self.names.hash_one(name.to_ascii_lowercase()).to_le_bytes();
        let name = u32::from_le_bytes(hash);
        self.charge_by(client, peer, now, |reputation, source| reputation.charge_password(source, name, now));
    }

    /// Mail of this client was accepted (`delivered`), or its password was right: both speak for its source.
    pub fn credit(&self, client: ClientAddr, delivered: bool, now: Millis) {
        if self.is_enabled() {
            self.reputation().credit(Source::of(client.ip()), delivered, now);
        }
    }

    /// The relay guard refused a recipient in this domain.
    pub fn count_refused_domain(&self, domain: &str, now: Millis) {
        self.refused_domains.lock().unwrap_or_else(PoisonError::into_inner).count(domain, now);
    }

    /// The domains that recipients were refused in most often, at most this many.
    pub fn refused_domains(&self, most: usize) -> Vec<RefusedDomain> {
        self.refused_domains.lock().unwrap_or_else(PoisonError::into_inner).top(most)
    }

    /// From now on every change is told. There is one follower at most: `None` for a second.
    pub fn follow(&self) -> Option<Changes> {
        self.follower.follow()
    }

    fn charge_by(
        &self,
        client: ClientAddr,
        peer: PeerAddr,
        now: Millis,
        charge: impl FnOnce(&mut Reputation, Source) -> Option<BanDue>,
    ) {
        let ip = client.ip();
        if !self.is_enabled() || self.is_exempt(ip) {
            return;
        }
        let Some(sentence) = charge(&mut self.reputation(), Source::of(ip)) else { return };
        let BanDue { network, length, cause, reason, count } = sentence;
        if let Some((_, forwarder)) = self.forwarders.iter().find(|(address, _)| *address == ip.to_canonical()) {
            warn!(
                client = %ip,
                reason,
                "not banned: it is {}, and whoever is hidden behind it would be banned with it; have what forwards \
                 connections hand on the client's address (no masquerading, or the PROXY protocol and \
                 `proxy_protocol_from`), or ban it by hand",
                forwarder.as_str()
            );
            return;
        }
        // A client behind a load balancer sends no packets here: its address in the kernel's hands would help nobody.
        let in_kernel = ip == peer.ip();
        let ban = Ban::new(network, Cause::Offences(cause), &reason, now, length, in_kernel);
        let source = Shown(network);
        match self.enter(ban) {
            Ok(_) => {
                info!(%source, reason, count, seconds = length.as_secs(), "banned");
                events::emit(EventKind::Ban, source, format_args!("{reason}, for {} s", length.as_secs()));
            }
            Err(Full) => warn!(%source, reason, "not banned: there are as many bans as there may be"),
        }
    }

    /// An administrator's ban.
    ///
    /// # Errors
    /// The network is too wide, or protected; or the book is full. In place of a ban of the same network it always finds room.
    pub fn ban(&self, network: IpNet, length: Duration, reason: &str, now: Millis) -> Result<BanView, BanError> {
        let network = network.trunc();
        let least = if network.addr().is_ipv4() { PREFIX_MIN_V4 } else { PREFIX_MIN_V6 };
        if network.prefix_len() < least {
            return Err(BanError::TooWide(network));
        }
        if let Some(protection) = self.protected.reason(network) {
            return Err(BanError::Protected(network, protection));
        }
        let view = self.enter(Ban::new(network, Cause::Administrator, reason, now, length, true));
        let view = view.map_err(|Full| BanError::Full)?;
        info!(source = %Shown(network), reason, seconds = length.as_secs(), "banned by an administrator");
        let text = format_args!("by an administrator: {reason}, for {} s", length.as_secs());
        events::emit(EventKind::Ban, Shown(network), text);
        Ok(view)
    }

    /// Takes a ban back, and forgets what led to it.
    ///
    /// # Errors
    /// Exactly this network is not banned; names a wider one that holds it, if there is one.
    pub fn unban(&self, network: IpNet, now: Millis) -> Result<BanView, BanError> {
        let network = network.trunc();
        let mut book = self.write();
        let in_force = book.exact(network, now).is_some();
        let Some(ban) = book.remove(network).filter(|_| in_force) else {
            let wider = book.find(network.addr(), now).map(|ban| ban.network).filter(|other| other.contains(&network));
            return Err(BanError::NotBanned(network, wider));
        };
        self.entries.store(book.len(), Ordering::Release);
        self.follower.tell(Change::Removed(network));
        self.revision.fetch_add(1, Ordering::Relaxed);
        drop(book);
        self.reputation().pardon(network);
        info!(source = %Shown(network), "ban taken back");
        events::emit(EventKind::Unban, Shown(network), "taken back");
        Ok(BanView::of(&ban))
    }

    /// All bans in force, the newest first.
    pub fn bans(&self, now: Millis) -> Vec<BanView> {
        let mut bans: Vec<_> = self.read().in_force(now).map(BanView::of).collect();
        bans.sort_unstable_by_key(|ban| (std::cmp::Reverse(ban.since), ban.network));
        bans
    }

    /// How many bans are in force.
    pub fn count(&self, now: Millis) -> usize {
        self.read().in_force(now).count()
    }

    /// Addresses that backends were found at: never banned from now on.
    pub fn protect_backends(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if self.protected.learn(address) {
                self.follower.tell(Change::Protected(address.to_canonical()));
            }
        }
    }

    /// Everybody who is never banned, as of now.
    pub fn protected(&self) -> Vec<(IpNet, Protection)> {
        self.protected.all()
    }

    /// What is on whom, for another process of this gateway.
    pub fn reputation_state(&self, now: Millis) -> ReputationState {
        self.reputation().state(now)
    }

    /// Goes on from what another process of this gateway knew.
    pub fn adopt_reputation(&self, state: ReputationState) {
        self.reputation().adopt(state);
    }

    /// A ban that another run left in force.
    ///
    /// # Errors
    /// The book is full.
    pub fn restore(&self, ban: Ban) -> Result<(), Full> {
        let mut book = self.write();
        book.enter(ban)?;
        self.entries.store(book.len(), Ordering::Release);
        Ok(())
    }

    /// A ban that a journal kept: in force again, and told to whoever follows. Not if its network is protected by now, or the
    /// book is full.
    pub fn reinstate(&self, ban: Ban) -> bool {
        self.protected.reason(ban.network).is_none() && self.enter(ban).is_ok()
    }

    /// A number that differs whenever the book does.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Forgets bans that have expired. Wants to be called now and then; nothing depends on when.
    pub fn sweep(&self, now: Millis) {
        if !self.read().needs_sweeping(now) {
            return;
        }
        let mut book = self.write();
        let expired = book.sweep(now);
        self.entries.store(book.len(), Ordering::Release);
        for ban in &expired {
            self.follower.tell(Change::Removed(ban.network));
        }
        drop(book);
        for ban in expired {
            info!(source = %Shown(ban.network), refused = ban.refused.into_inner(), "ban expired");
        }
    }

    fn enter(&self, ban: Ban) -> Result<BanView, Full> {
        let mut book = self.write();
        let view = book.enter(ban).map(BanView::of)?;
        self.entries.store(book.len(), Ordering::Release);
        // Under the lock, so that changes are told in the order in which they were made.
        self.follower.tell(Change::Entered(view.clone()));
        self.revision.fetch_add(1, Ordering::Relaxed);
        Ok(view)
    }

    fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.trusted.load().iter().any(|network| network.contains(&ip)) || self.protected.reason(ip.into()).is_some()
    }

    fn reputation(&self) -> MutexGuard<'_, Reputation> {
        self.reputation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, BanBook> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BanBook> {
        self.book.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
