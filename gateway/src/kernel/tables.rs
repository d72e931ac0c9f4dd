//! The maps that the writer writes, as it needs them: a trait, so that what is written when can be tested without a kernel.

use std::fmt;
use std::net::IpAddr;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use gateway_common::{BanRow, Deny, SourceKey, ban_row, maps};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which of the two bit fields before the slow maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BitField {
    Bans,
    Networks,
}

/// The maps.
pub(super) trait Tables {
    type Error: fmt::Display;

    fn bits(&self, field: BitField, word: u32) -> Result<u64, Self::Error>;
    fn set_bits(&mut self, field: BitField, word: u32, bits: u64) -> Result<(), Self::Error>;

    fn bans(&self) -> Result<Vec<(SourceKey, Deny)>, Self::Error>;
    fn ban(&self, source: SourceKey) -> Result<Option<Deny>, Self::Error>;
    fn put_ban(&mut self, source: SourceKey, deny: Deny) -> Result<(), Self::Error>;
    fn remove_ban(&mut self, source: SourceKey) -> Result<(), Self::Error>;

    fn denied(&self) -> Result<Vec<(IpNet, Deny)>, Self::Error>;
    /// Of exactly this network, which must be there.
    fn denied_network(&self, network: IpNet) -> Result<Option<Deny>, Self::Error>;
    fn put_denied(&mut self, network: IpNet, deny: Deny) -> Result<(), Self::Error>;
    fn remove_denied(&mut self, network: IpNet) -> Result<(), Self::Error>;

    fn allowed(&self) -> Result<Vec<(IpNet, u32)>, Self::Error>;
    fn put_allowed(&mut self, network: IpNet, value: u32) -> Result<(), Self::Error>;
    fn remove_allowed(&mut self, network: IpNet) -> Result<(), Self::Error>;
}

/// A trie for each family.
pub(super) struct Tries<V: Pod> {
    v4: LpmTrie<MapData, [u8; 4], V>,
    v6: LpmTrie<MapData, [u8; 16], V>,
}

/// The kernel's own.
pub(super) struct KernelTables {
    ban_bits: Array<MapData, u64>,
    net_bits: Array<MapData, u64>,
    bans: Bans,
    denied: Tries<Deny>,
    allowed: Tries<u32>,
}

/// Bans of single sources: those of IPv4 addresses in rows, the others, and those whose row is full, in a hash table.
pub(super) struct Bans {
    rows: Array<MapData, BanRow>,
    others: HashMap<MapData, SourceKey, Deny>,
}

impl KernelTables {
    /// `open` gives a handle of the map with this name, which the tables may keep.
    pub(super) fn open(open: &impl Fn(&str) -> Result<MapData, MapError>) -> Result<Self, MapError> {
        Ok(Self {
            ban_bits: typed(open, maps::BITS)?,
            net_bits: typed(open, maps::NET_BITS)?,
            bans: Bans::open(open)?,
            denied: Tries { v4: typed(open, maps::DENY4)?, v6: typed(open, maps::DENY6)? },
            allowed: Tries { v4: typed(open, maps::ALLOW4)?, v6: typed(open, maps::ALLOW6)? },
        })
    }

    fn field(&mut self, field: BitField) -> &mut Array<MapData, u64> {
        match field {
            BitField::Bans => &mut self.ban_bits,
            BitField::Networks => &mut self.net_bits,
        }
    }
}

pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(
    open: &impl Fn(&str) -> Result<MapData, MapError>,
    name: &str,
) -> Result<T, MapError> {
    T::try_from(Map::from_map_data(open(name)?)?)
}

impl Tables for KernelTables {
    type Error = MapError;

    fn bits(&self, field: BitField, word: u32) -> Result<u64, MapError> {
        match field {
            BitField::Bans => self.ban_bits.get(&word, 0),
            BitField::Networks => self.net_bits.get(&word, 0),
        }
    }

    fn set_bits(&mut self, field: BitField, word: u32, bits: u64) -> Result<(), MapError> {
        self.field(field).set(word, bits, 0)
    }

    fn bans(&self) -> Result<Vec<(SourceKey, Deny)>, MapError> {
        let mut all = self.bans.others.iter().collect::<Result<Vec<_>, _>>()?;
        // A row without a bit has no ban, and most have none.
        for word in (0..maps::BITS_WORDS).step_by(2) {
            let bits = self.ban_bits.get(&word, 0)?.to_le_bytes();
            for (row, _) in (word / 2 * 8..).zip(bits).filter(|(_, bits)| *bits != 0) {
                let row = self.bans.rows.get(&row, 0)?;
                let bans = row.address.into_iter().filter_map(|address| row.get(address).map(|ban| (address, ban)));
                all.extend(bans.map(|(address, ban)| (SourceKey::v4(address), ban)));
            }
        }
        Ok(all)
    }

    fn ban(&self, source: SourceKey) -> Result<Option<Deny>, MapError> {
        self.bans.get(source)
    }

    fn put_ban(&mut self, source: SourceKey, deny: Deny) -> Result<(), MapError> {
        self.bans.put(source, &deny)
    }

    fn remove_ban(&mut self, source: SourceKey) -> Result<(), MapError> {
        self.bans.remove(source)
    }

    fn denied(&self) -> Result<Vec<(IpNet, Deny)>, MapError> {
        self.denied.all()
    }

    fn denied_network(&self, network: IpNet) -> Result<Option<Deny>, MapError> {
        self.denied.get(network)
    }

    fn put_denied(&mut self, network: IpNet, deny: Deny) -> Result<(), MapError> {
        self.denied.put(network, deny)
    }

    fn remove_denied(&mut self, network: IpNet) -> Result<(), MapError> {
        self.denied.remove(network)
    }

    fn allowed(&self) -> Result<Vec<(IpNet, u32)>, MapError> {
        self.allowed.all()
    }

    fn put_allowed(&mut self, network: IpNet, value: u32) -> Result<(), MapError> {
        self.allowed.put(network, value)
    }

    fn remove_allowed(&mut self, network: IpNet) -> Result<(), MapError> {
        self.allowed.remove(network)
    }
}

impl Bans {
    pub(super) fn open(open: &impl Fn(&str) -> Result<MapData, MapError>) -> Result<Self, MapError> {
        Ok(Self { rows: typed(open, maps::BANS4)?, others: typed(open, maps::BANS)? })
    }

    pub(super) fn get(&self, source: SourceKey) -> Result<Option<Deny>, MapError> {
        if let IpAddr::V4(address) = source.address() {
            let row = self.rows.get(&ban_row(source), 0)?;
            if let Some(ban) = row.get(address.octets()) {
                return Ok(Some(ban));
            }
        }
        found(self.others.get(&source, 0))
    }

    fn put(&mut self, source: SourceKey, ban: &Deny) -> Result<(), MapError> {
        let IpAddr::V4(address) = source.address() else { return self.others.insert(source, ban, 0) };
        let number = ban_row(source);
        let mut row = self.rows.get(&number, 0)?;
        if found(self.others.get(&source, 0))?.is_some() {
            return self.others.insert(source, ban, 0);
        }
        if row.put(address.octets(), ban) {
            return self.rows.set(number, row, 0);
        }
        // Announced first, or the kernel side would not look there.
        row.elsewhere += 1;
        self.rows.set(number, row, 0)?;
        let put = self.others.insert(source, ban, 0);
        if put.is_err() {
            row.elsewhere -= 1;
            self.rows.set(number, row, 0)?;
        }
        put
    }

    /// One that is not there is no error.
    fn remove(&mut self, source: SourceKey) -> Result<(), MapError> {
        let IpAddr::V4(address) = source.address() else { return found(self.others.remove(&source)).map(drop) };
        let number = ban_row(source);
        let mut row = self.rows.get(&number, 0)?;
        if row.remove(address.octets()) {
            return self.rows.set(number, row, 0);
        }
        if found(self.others.remove(&source))?.is_some() {
            row.elsewhere = row.elsewhere.saturating_sub(1);
            self.rows.set(number, row, 0)?;
        }
        Ok(())
    }
}

/// What is not there is no error.
pub(super) fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn key_v4(network: Ipv4Net) -> Key<[u8; 4]> {
    Key::new(network.prefix_len().into(), network.addr().octets())
}

fn key_v6(network: Ipv6Net) -> Key<[u8; 16]> {
    Key::new(network.prefix_len().into(), network.addr().octets())
}

impl<V: Pod> Tries<V> {
    pub(super) fn open(
        open: &impl Fn(&str) -> Result<MapData, MapError>,
        v4: &str,
        v6: &str,
    ) -> Result<Self, MapError> {
        Ok(Self { v4: typed(open, v4)?, v6: typed(open, v6)? })
    }

    fn put(&mut self, network: IpNet, value: V) -> Result<(), MapError> {
        match network {
            IpNet::V4(network) => self.v4.insert(&key_v4(network), value, 0),
            IpNet::V6(network) => self.v6.insert(&key_v6(network), value, 0),
        }
    }

    fn remove(&mut self, network: IpNet) -> Result<(), MapError> {
        let removed = match network {
            IpNet::V4(network) => self.v4.remove(&key_v4(network)),
            IpNet::V6(network) => self.v6.remove(&key_v6(network)),
        };
        found(removed).map(drop)
    }

    fn all(&self) -> Result<Vec<(IpNet, V)>, MapError> {
        let mut all = Vec::new();
        for entry in self.v4.iter() {
            let (key, value) = entry?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            all.extend(IpNet::new(key.data().into(), length).ok().map(|network| (network, value)));
        }
        for entry in self.v6.iter() {
            let (key, value) = entry?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            all.extend(IpNet::new(key.data().into(), length).ok().map(|network| (network, value)));
        }
        Ok(all)
    }

    /// The value of the longest prefix that holds this network's first address; exactly the network's if that has one.
    pub(super) fn get(&self, network: IpNet) -> Result<Option<V>, MapError> {
        found(match network {
            IpNet::V4(network) => self.v4.get(&key_v4(network), 0),
            IpNet::V6(network) => self.v6.get(&key_v6(network), 0),
        })
    }
}
