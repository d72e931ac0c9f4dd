//! What is written into the maps, and in which order, so that the kernel side never sees a ban it cannot find.
//!
//! Before each slow map stands a field of bits that says whether asking it is worth while. A bit is shared by many, so the
//! writer counts who needs it: it is set before the first entry and cleared after the last. After a restart the counts are
//! made anew from the maps themselves, which are the truth.
//!
//! Invariant: nobody else writes these maps.

use std::collections::{HashMap, HashSet};

use gateway_common::maps::{BITS_WORDS, NET_BITS_WORDS};
use gateway_common::{Deny, SourceKey, ban_bit, net_bits_v4, net_bits_v6, outcome};
use ipnet::IpNet;

use super::tables::{BitField, Tables};

/// Groups of one family in `NET_BITS`.
const GROUPS: u32 = 65_536;
/// IPv6 networks shorter than this have every group: there are as many /32s in one as there are groups.
const EVERY_GROUP_V6: u8 = 16;

/// Which bit of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Allow = 0,
    Deny = 1,
}

/// The maps, and who needs which bit.
#[derive(Debug)]
pub(super) struct Writer<T> {
    tables: T,
    bans: Bits,
    networks: Bits,
    /// What is in the tries: they cannot be asked for exactly one network.
    denied: HashSet<IpNet>,
    allowed: HashSet<IpNet>,
    /// What is denied without being banned, and is again when a ban of the same network ends.
    faults: HashMap<IpNet, Deny>,
}

/// One field of bits.
#[derive(Debug)]
struct Bits {
    field: BitField,
    /// Bit number to how many need it; those that nobody needs are not in it.
    users: HashMap<u32, u32>,
}

/// Where a ban is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BanMap {
    Source(SourceKey),
    Network,
}

impl<T: Tables> Writer<T> {
    /// Takes over the maps as another run left them, as by [`take_over`](Self::take_over).
    pub(super) fn new(
        tables: T,
        allow: &[(IpNet, u32)],
        faults: &[(IpNet, Deny)],
        now_ns: u64,
    ) -> Result<Self, T::Error> {
        let mut writer = Self {
            tables,
            bans: Bits::new(BitField::Bans),
            networks: Bits::new(BitField::Networks),
            denied: HashSet::new(),
            allowed: HashSet::new(),
            faults: HashMap::new(),
        };
        writer.take_over(allow, faults, now_ns)?;
        Ok(writer)
    }

    /// Reads from the maps who needs which bit, and makes the allow list what it is to be, and what is denied without being
    /// banned. Bans that are over by now are taken out.
    pub(super) fn take_over(
        &mut self,
        allow: &[(IpNet, u32)],
        faults: &[(IpNet, Deny)],
        now_ns: u64,
    ) -> Result<(), T::Error> {
        let (bans, denied, allowed) = (self.tables.bans()?, self.tables.denied()?, self.tables.allowed()?);
        (self.bans, self.networks) = (Bits::new(BitField::Bans), Bits::new(BitField::Networks));
        self.denied = denied.iter().map(|(network, _)| *network).collect();
        self.allowed = allowed.iter().map(|(network, _)| *network).collect();
        self.faults = faults.iter().copied().collect();
        for (source, _) in &bans {
            self.bans.note(ban_bit_number(*source));
        }
        for (network, _) in &denied {
            self.networks.note_all(network_bits(*network, Kind::Deny));
        }
        for (network, _) in &allowed {
            self.networks.note_all(network_bits(*network, Kind::Allow));
        }
        // The odd words are the sources'.
        self.bans.write_all(&mut self.tables, (0..BITS_WORDS).step_by(2))?;
        self.networks.write_all(&mut self.tables, 0..NET_BITS_WORDS)?;
        for &(network, value) in allow {
            self.allow(network, value)?;
        }
        for (network, _) in allowed.into_iter().filter(|(network, _)| !allow.iter().any(|(other, _)| other == network))
        {
            self.disallow(network)?;
        }
        for (source, _) in bans.iter().filter(|(_, deny)| deny.until_ns <= now_ns) {
            self.remove(IpNet::new(source.address(), source.prefix_length()).unwrap_or_default())?;
        }
        let is_ban = |deny: &Deny| deny.cause == outcome::DROP_BAN_NETWORK;
        for (network, deny) in &denied {
            if if is_ban(deny) { deny.until_ns <= now_ns } else { !faults.iter().any(|(other, _)| other == network) } {
                self.remove(*network)?;
            }
        }
        for (network, deny) in faults {
            if !denied.iter().any(|(other, deny)| other == network && is_ban(deny) && now_ns < deny.until_ns) {
                self.put_denied(*network, *deny)?;
            }
        }
        Ok(())
    }

    /// Every ban in the maps.
    pub(super) fn bans(&self) -> Result<Vec<(IpNet, Deny)>, T::Error> {
        let sources = self.tables.bans()?.into_iter().filter_map(|(source, deny)| {
            IpNet::new(source.address(), source.prefix_length()).ok().map(|network| (network, deny))
        });
        let networks = self.tables.denied()?;
        let networks = networks.into_iter().filter(|(_, deny)| deny.cause == outcome::DROP_BAN_NETWORK);
        Ok(sources.chain(networks).collect())
    }

    /// Puts a ban in, or changes it; what was counted for it goes on being counted.
    pub(super) fn put(&mut self, network: IpNet, until_ns: u64, since_ns: u64, reason: u32) -> Result<(), T::Error> {
        let deny =
            |cause| Deny { until_ns, since_ns, dropped: 0, last_dropped_ns: 0, cause, reason, flags: 0, reserved: 0 };
        match place(network) {
            BanMap::Source(source) => {
                let known = self.tables.ban(source)?;
                let counted = known.map_or((0, 0), |known| (known.dropped, known.last_dropped_ns));
                let (dropped, last_dropped_ns) = counted;
                let deny = Deny { dropped, last_dropped_ns, ..deny(outcome::DROP_BAN) };
                if known.is_none() {
                    self.bans.acquire(&mut self.tables, ban_bit_number(source))?;
                }
                let put = self.tables.put_ban(source, deny);
                if put.is_err() && known.is_none() {
                    self.bans.release(&mut self.tables, ban_bit_number(source))?;
                }
                put
            }
            BanMap::Network => self.put_denied(network, deny(outcome::DROP_BAN_NETWORK)),
        }
    }

    /// A network that is denied for whatever cause.
    fn put_denied(&mut self, network: IpNet, mut deny: Deny) -> Result<(), T::Error> {
        if self.denied.contains(&network) {
            if let Some(known) = self.tables.denied_network(network)? {
                (deny.dropped, deny.last_dropped_ns) = (known.dropped, known.last_dropped_ns);
            }
            return self.tables.put_denied(network, deny);
        }
        let bits = network_bits(network, Kind::Deny);
        self.networks.acquire_all(&mut self.tables, &bits)?;
        let put = self.tables.put_denied(network, deny);
        match put {
            Ok(()) => drop(self.denied.insert(network)),
            Err(_) => self.networks.release_all(&mut self.tables, &bits)?,
        }
        put
    }

    /// Takes a ban out. One that is not there is no error.
    pub(super) fn remove(&mut self, network: IpNet) -> Result<(), T::Error> {
        match place(network) {
            BanMap::Source(source) => {
                if self.tables.ban(source)?.is_some() {
                    self.tables.remove_ban(source)?;
                    self.bans.release(&mut self.tables, ban_bit_number(source))?;
                }
            }
            BanMap::Network => {
                if let Some(fault) = self.faults.get(&network) {
                    return self.put_denied(network, *fault);
                }
                if self.denied.contains(&network) {
                    self.tables.remove_denied(network)?;
                    self.denied.remove(&network);
                    self.networks.release_all(&mut self.tables, &network_bits(network, Kind::Deny))?;
                }
            }
        }
        Ok(())
    }

    /// Puts a network on the allow list.
    pub(super) fn allow(&mut self, network: IpNet, value: u32) -> Result<(), T::Error> {
        let bits = network_bits(network, Kind::Allow);
        if self.allowed.contains(&network) {
            return self.tables.put_allowed(network, value);
        }
        self.networks.acquire_all(&mut self.tables, &bits)?;
        let put = self.tables.put_allowed(network, value);
        match put {
            Ok(()) => drop(self.allowed.insert(network)),
            Err(_) => self.networks.release_all(&mut self.tables, &bits)?,
        }
        put
    }

    fn disallow(&mut self, network: IpNet) -> Result<(), T::Error> {
        self.tables.remove_allowed(network)?;
        self.allowed.remove(&network);
        self.networks.release_all(&mut self.tables, &network_bits(network, Kind::Allow))
    }

    #[cfg(test)]
    pub(super) fn tables(&self) -> &T {
        &self.tables
    }
}

/// Single sources are looked up by hash; only they can be, and not those in `::/16`, which the kernel side never sees.
fn place(network: IpNet) -> BanMap {
    match SourceKey::of(network.addr()) {
        Some(source) if source.prefix_length() == network.prefix_len() => BanMap::Source(source),
        _ => BanMap::Network,
    }
}

fn ban_bit_number(source: SourceKey) -> u32 {
    let (word, mask) = ban_bit(source);
    word * 64 + mask.trailing_zeros()
}

/// Numbers of the bits that a network needs.
fn network_bits(network: IpNet, kind: Kind) -> Vec<u32> {
    let number = |(word, shift): (u32, u32)| word * 64 + shift + kind as u32;
    match network {
        IpNet::V4(network) => {
            let first = u32::from_be_bytes(network.addr().octets()) >> 16;
            let groups = 1 << 16_u8.saturating_sub(network.prefix_len());
            (first..first + groups).map(|group: u32| number(net_bits_v4((group << 16).to_be_bytes()))).collect()
        }
        IpNet::V6(network) if network.prefix_len() < EVERY_GROUP_V6 => {
            (GROUPS..2 * GROUPS).map(|group| group * 2 + kind as u32).collect()
        }
        IpNet::V6(network) => {
            let first = network.addr().to_bits() >> 96;
            let count = 1_u128 << 32_u8.saturating_sub(network.prefix_len());
            let mut bits: Vec<_> =
                (first..first + count).map(|group| number(net_bits_v6((group << 96).to_be_bytes()))).collect();
            // Groups are hashes: two of one network's may be the same, and it needs that one once.
            bits.sort_unstable();
            bits.dedup();
            bits
        }
    }
}

impl Bits {
    fn new(field: BitField) -> Self {
        Self { field, users: HashMap::new() }
    }

    fn note(&mut self, bit: u32) {
        *self.users.entry(bit).or_default() += 1;
    }

    fn note_all(&mut self, bits: Vec<u32>) {
        for bit in bits {
            self.note(bit);
        }
    }

    fn word(&self, word: u32) -> u64 {
        (0..64).filter(|bit| self.users.contains_key(&(word * 64 + bit))).fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Makes the field what it must be; what it is already is not written.
    fn write_all<T: Tables>(&self, tables: &mut T, words: impl Iterator<Item = u32>) -> Result<(), T::Error> {
        let mut wanted: HashMap<u32, u64> = HashMap::new();
        for bit in self.users.keys() {
            *wanted.entry(bit / 64).or_default() |= 1 << (bit % 64);
        }
        for word in words {
            let bits = wanted.get(&word).copied().unwrap_or_default();
            if tables.bits(self.field, word)? != bits {
                tables.set_bits(self.field, word, bits)?;
            }
        }
        Ok(())
    }

    fn acquire<T: Tables>(&mut self, tables: &mut T, bit: u32) -> Result<(), T::Error> {
        self.note(bit);
        if self.users.get(&bit) == Some(&1) {
            tables.set_bits(self.field, bit / 64, self.word(bit / 64))?;
        }
        Ok(())
    }

    fn release<T: Tables>(&mut self, tables: &mut T, bit: u32) -> Result<(), T::Error> {
        if let Some(users) = self.users.get_mut(&bit) {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&bit);
                tables.set_bits(self.field, bit / 64, self.word(bit / 64))?;
            }
        }
        Ok(())
    }

    fn acquire_all<T: Tables>(&mut self, tables: &mut T, bits: &[u32]) -> Result<(), T::Error> {
        bits.iter().try_for_each(|&bit| self.acquire(tables, bit))
    }

    fn release_all<T: Tables>(&mut self, tables: &mut T, bits: &[u32]) -> Result<(), T::Error> {
        bits.iter().try_for_each(|&bit| self.release(tables, bit))
    }
}

#[cfg(test)]
mod tests;
