//! The book of bans: who may not come in, why, since when and until when.
//!
//! A ban is of a network; one address is a network too. Looking up costs one probe for each prefix length in use, which
//! for bans of single sources is one a family. Ends are kept in order, so that sweeping costs what has expired and not
//! what is in force. A ban that has expired is none, whether it was swept or not.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::offences::Offence;
use crate::time::Millis;

/// Bans of single sources at once.
pub const SOURCES_MAX: usize = 131_072;
/// Bans of other networks at once.
pub const NETWORKS_MAX: usize = 10_240;

/// Whose word a ban is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The source's own doing; this weighed most.
    Offences(Offence),
    /// An administrator's word.
    Administrator,
}

/// A source or network that is kept out, until its end.
#[derive(Debug)]
pub struct Ban {
    /// Whom it keeps out.
    pub network: IpNet,
    /// Whose word it is.
    pub cause: Cause,
    /// Why, for people.
    pub reason: Box<str>,
    /// When it was pronounced; a longer one in its place keeps that time.
    pub since: Millis,
    /// Its end.
    pub until: Millis,
    /// Whether the kernel may drop its packets. Not if the source is known from PROXY headers alone: its packets never come
    /// here by themselves.
    pub in_kernel: bool,
    /// Connections refused for it.
    pub refused: AtomicU64,
}

/// There are as many bans as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The bans that are in force or have just ended, each network once.
#[derive(Debug, Default)]
pub struct BanBook {
    bans: HashMap<IpNet, Ban>,
    ends: BTreeSet<(Millis, IpNet)>,
    v4: Lengths<33>,
    v6: Lengths<129>,
    networks: usize,
}

/// How many bans there are of each prefix length.
#[derive(Debug)]
struct Lengths<const N: usize>([u32; N]);

impl Ban {
    /// In force from `now` for `length`.
    pub fn new(network: IpNet, cause: Cause, reason: &str, now: Millis, length: Duration, in_kernel: bool) -> Self {
        let until = now.after(length);
        Self { network, cause, reason: reason.into(), since: now, until, in_kernel, refused: AtomicU64::new(0) }
    }

    /// A connection was refused for it.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl BanBook {
    /// How many, expired ones included until they are swept.
    pub fn len(&self) -> usize {
        self.bans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bans.is_empty()
    }

    /// Enters a ban, in place of one of the very same network. The new word counts, but offences never shorten what an
    /// administrator or a longer ban has said.
    ///
    /// # Errors
    /// The book is full for new networks of this kind; nothing is forgotten to make room.
    pub fn enter(&mut self, mut ban: Ban) -> Result<&Ban, Full> {
        let network = ban.network;
        if let Some(old) = self.bans.get(&network) {
            if matches!(ban.cause, Cause::Offences(_)) && old.until >= ban.until {
                return Ok(&self.bans[&network]);
            }
            ban.refused = AtomicU64::new(old.refused.load(Ordering::Relaxed));
            if old.until >= ban.since {
                ban.since = old.since;
                ban.in_kernel |= old.in_kernel;
            }
            self.remove(network);
        } else if self.is_full_for(network) {
            return Err(Full);
        }
        self.ends.insert((ban.until, network));
        self.count(network, 1);
        Ok(self.bans.entry(network).or_insert(ban))
    }

    /// Takes a ban of exactly this network out.
    pub fn remove(&mut self, network: IpNet) -> Option<Ban> {
        let ban = self.bans.remove(&network)?;
        self.ends.remove(&(ban.until, network));
        self.count(network, -1);
        Some(ban)
    }

    /// The narrowest ban in force that holds this address.
    pub fn find(&self, ip: IpAddr, now: Millis) -> Option<&Ban> {
        let ip = ip.to_canonical();
        let in_force = |length: u8| {
            let network = IpNet::new(ip, length).ok()?.trunc();
            self.bans.get(&network).filter(|ban| now < ban.until)
        };
        match ip {
            IpAddr::V4(_) => self.v4.longest_first().find_map(in_force),
            IpAddr::V6(_) => self.v6.longest_first().find_map(in_force),
        }
    }

    /// The ban of exactly this network, if it is in force.
    pub fn exact(&self, network: IpNet, now: Millis) -> Option<&Ban> {
        self.bans.get(&network).filter(|ban| now < ban.until)
    }

    /// Bans in force, in no order.
    pub fn in_force(&self, now: Millis) -> impl Iterator<Item = &Ban> {
        self.bans.values().filter(move |ban| now < ban.until)
    }

    /// Whether something has expired and is still here.
    pub fn needs_sweeping(&self, now: Millis) -> bool {
        self.ends.first().is_some_and(|(until, _)| *until <= now)
    }

    /// Takes out what has expired.
    pub fn sweep(&mut self, now: Millis) -> Vec<Ban> {
        let mut expired = Vec::new();
        while let Some(&(until, network)) = self.ends.first()
            && until <= now
        {
            expired.extend(self.remove(network));
        }
        expired
    }

    fn is_full_for(&self, network: IpNet) -> bool {
        if is_source(network) { self.bans.len() - self.networks >= SOURCES_MAX } else { self.networks >= NETWORKS_MAX }
    }

    fn count(&mut self, network: IpNet, by: i32) {
        let length = usize::from(network.prefix_len());
        let count = match network {
            IpNet::V4(_) => &mut self.v4.0[length],
            IpNet::V6(_) => &mut self.v6.0[length],
        };
        *count = count.saturating_add_signed(by);
        if !is_source(network) {
            self.networks = if by > 0 { self.networks + 1 } else { self.networks - 1 };
        }
    }
}

/// Whether it is exactly what counts as one client.
pub fn is_source(network: IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.prefix_len() == 32,
        IpNet::V6(network) => network.prefix_len() == 64,
    }
}

impl<const N: usize> Lengths<N> {
    fn longest_first(&self) -> impl Iterator<Item = u8> {
        let lengths = self.0.iter().enumerate().rev().filter(|(_, count)| **count > 0);
        lengths.filter_map(|(length, _)| u8::try_from(length).ok())
    }
}

impl<const N: usize> Default for Lengths<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

#[cfg(test)]
mod tests;
