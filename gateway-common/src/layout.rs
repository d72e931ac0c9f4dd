//! The maps as a table, and the version it amounts to: pinned maps of another version are left alone.

use core::mem::size_of;

use crate::outcome::COUNTERS;
use crate::{BanRow, Config, Counter, Deny, GateRow, Source, SourceKey, SourceRow, maps};

/// Raised when a field changes its meaning and not its place.
const REVISION: u64 = 2;

/// What kind of map it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// Array.
    Array,
    /// Array with a value for each CPU.
    PerCpuArray,
    /// Hash, allocated on demand, without eviction.
    Hash,
    /// Longest-prefix trie; the key size is the address's.
    LpmTrie,
    /// Ring buffer; the capacity is its bytes.
    RingBuffer,
}

/// One map of the program. All of them are pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// Its name in the object and in the pin directory.
    pub name: &'static str,
    /// Its kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Entries it can hold.
    pub capacity: u32,
}

const fn map(name: &'static str, kind: MapKind, key_size: usize, value_size: usize, capacity: u32) -> Map {
    Map { name, kind, key_size, value_size, capacity }
}

const KEY: usize = size_of::<SourceKey>();
const DENY: usize = size_of::<Deny>();

/// Every map.
pub const MAPS: [Map; 17] = [
    map(maps::CONFIG, MapKind::Array, 4, size_of::<Config>(), 1),
    map(maps::PORTS, MapKind::Array, 4, 8, maps::PORTS_WORDS),
    map(maps::INTERFACES, MapKind::Hash, 4, 4, maps::INTERFACES_MAX),
    map(maps::BANS4, MapKind::Array, 4, size_of::<BanRow>(), maps::BANS4_ROWS),
    map(maps::BANS, MapKind::Hash, KEY, DENY, maps::BANS_MAX),
    map(maps::BITS, MapKind::Array, 4, 8, maps::BITS_WORDS),
    map(maps::ALLOW4, MapKind::LpmTrie, 4, 4, maps::NETS_MAX),
    map(maps::ALLOW6, MapKind::LpmTrie, 16, 4, maps::NETS_MAX),
    map(maps::DENY4, MapKind::LpmTrie, 4, DENY, maps::NETS_MAX),
    map(maps::DENY6, MapKind::LpmTrie, 16, DENY, maps::NETS_MAX),
    map(maps::NET_BITS, MapKind::Array, 4, 8, maps::NET_BITS_WORDS),
    map(maps::SOURCES, MapKind::Hash, KEY, size_of::<Source>(), maps::SOURCES_MAX),
    map(maps::SOURCES4, MapKind::Array, 4, size_of::<SourceRow>(), maps::SOURCES4_ROWS),
    map(maps::GATE, MapKind::Array, 4, size_of::<GateRow>(), maps::GATE_ROWS),
    map(maps::BUCKETS, MapKind::PerCpuArray, 4, 8, maps::BUCKETS_MAX),
    map(maps::STATS, MapKind::PerCpuArray, 4, size_of::<Counter>(), COUNTERS),
    map(maps::EVENTS, MapKind::RingBuffer, 0, 0, maps::EVENTS_BYTES),
];

/// Two programs of the same version can share pinned maps.
pub const fn layout_version() -> u64 {
    // FNV-1a, 64 bits.
    let mut hash = fold(0xcbf2_9ce4_8422_2325, REVISION);
    let mut index = 0;
    while index < MAPS.len() {
        let Map { name, kind, key_size, value_size, capacity } = MAPS[index];
        let name = name.as_bytes();
        let mut byte = 0;
        while byte < name.len() {
            hash = (hash ^ name[byte] as u64).wrapping_mul(0x0100_0000_01b3);
            byte += 1;
        }
        hash = fold(hash, kind as u64);
        hash = fold(hash, key_size as u64);
        hash = fold(hash, value_size as u64);
        hash = fold(hash, capacity as u64);
        index += 1;
    }
    hash
}

const fn fold(mut hash: u64, word: u64) -> u64 {
    let bytes = word.to_le_bytes();
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_names_fit_the_kernel_and_differ() {
        for (index, map) in MAPS.iter().enumerate() {
            assert!(map.name.len() < 16, "{}", map.name);
            assert!(MAPS[..index].iter().all(|other| other.name != map.name), "{}", map.name);
        }
    }
}
