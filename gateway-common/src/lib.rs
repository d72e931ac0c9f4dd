//! What the kernel side (`gateway-ebpf`) and the userspace side (`gateway`, its room `kernel`) say to each other: the maps
//! by name, their keys and values, the numbers that stand for outcomes and reasons.
//!
//! This crate must not know either side. Nothing with an invalid bit pattern crosses the boundary: no enums, no `Option`,
//! no `bool`, no padding. Addresses and ports are byte arrays in network byte order; counters and times are native words,
//! because the kernel side adds to them atomically. Times are nanoseconds of `CLOCK_MONOTONIC`.

#![no_std]

mod hash;
mod key;
mod layout;
pub mod outcome;
pub mod reason;
mod value;

pub use hash::{ban_bit, ban_row, gate_cell, net_bits_v4, net_bits_v6, source_bit, source_row};
pub use key::SourceKey;
pub use layout::{MAPS, Map, MapKind, layout_version};
pub use value::{
    ALLOW_AUTOMATIC, ALLOW_CONFIGURED, BanRow, Config, Counter, DENY_ALL_PACKETS, Deny, Event, GATE_COUNT, GateRow,
    INTERFACE_OUTSIDE, Source, SourceRow,
};

/// What `Config::magic` must be: a map that nobody has written yet, or that is another program's, makes the program pass
/// everything.
pub const CONFIG_MAGIC: u32 = 0x534d_5450;

/// `Config::flags`: nothing is dropped; what would have been is counted under [`outcome::WOULD_DROP`].
pub const CONFIG_MONITOR_ONLY: u32 = 1;

/// Where the maps are, and how many entries they hold.
pub mod maps {
    /// Array, one [`Config`](super::Config) at 0.
    pub const CONFIG: &str = "CONFIG";
    /// Array of `u64` words: bit `port % 64` of word `port / 64` says that the port is a listener's.
    pub const PORTS: &str = "PORTS";
    /// Words of [`PORTS`].
    pub const PORTS_WORDS: u32 = 1024;
    /// Hash, interface index (`u32`) to flags (`u32`, [`INTERFACE_OUTSIDE`](super::INTERFACE_OUTSIDE)).
    pub const INTERFACES: &str = "INTERFACES";
    /// Interfaces at most.
    pub const INTERFACES_MAX: u32 = 64;
    /// Array of [`BanRow`](super::BanRow): bans of IPv4 addresses.
    pub const BANS4: &str = "BANS4";
    /// Rows of [`BANS4`], 8 MiB: of 64k bans one in thirty finds both places of its row taken.
    pub const BANS4_ROWS: u32 = 131_072;
    /// Hash, [`SourceKey`](super::SourceKey) to [`Deny`](super::Deny): bans of IPv6 /64s, and those that have no place in
    /// [`BANS4`]. Never evicted; full is an error of the insert.
    pub const BANS: &str = "BANS";
    /// Exact bans at most.
    pub const BANS_MAX: u32 = 131_072;
    /// Array of `u64` words, which tables are worth asking. Even words, [`ban_bit`](super::ban_bit): [`BANS4`] or [`BANS`].
    /// Whoever inserts a ban sets the bit **first**, and clears it only when no ban has it. Odd words,
    /// [`source_bit`](super::source_bit): [`SOURCES`]. The kernel side sets those; userspace clears the ones that no source has,
    /// now and then. One that is cleared by mistake, because the kernel side set it meanwhile, is set again when the source
    /// comes again.
    pub const BITS: &str = "BITS";
    /// Words of [`BITS`]: 2²⁰ bits of each sort, so 100,000 bans send one stranger in ten to [`BANS`] for nothing.
    pub const BITS_WORDS: u32 = 32_768;
    /// LPM trie, IPv4: networks that nothing may ban or limit. Value: `u32`, [`ALLOW_CONFIGURED`](super::ALLOW_CONFIGURED)
    /// or [`ALLOW_AUTOMATIC`](super::ALLOW_AUTOMATIC).
    pub const ALLOW4: &str = "ALLOW4";
    /// The same for IPv6.
    pub const ALLOW6: &str = "ALLOW6";
    /// LPM trie, IPv4 to [`Deny`](super::Deny): banned networks, bogons, addresses that must not come from outside.
    pub const DENY4: &str = "DENY4";
    /// The same for IPv6.
    pub const DENY6: &str = "DENY6";
    /// Networks at most, in each of the four tries.
    pub const NETS_MAX: u32 = 65_536;
    /// Array of `u64` words: which tries are worth asking ([`net_bits_v4`](super::net_bits_v4)). Bits are set **before** the
    /// network is inserted.
    pub const NET_BITS: &str = "NET_BITS";
    /// Words of [`NET_BITS`].
    pub const NET_BITS_WORDS: u32 = 4096;
    /// Hash, [`SourceKey`](super::SourceKey) to [`Source`](super::Source). The kernel side inserts and counts, and never
    /// evicts; userspace removes sources that are idle. Nothing but the kernel side writes a value. Of IPv4 sources it is half
    /// the account: the other half is in [`SOURCES4`].
    pub const SOURCES: &str = "SOURCES";
    /// Sources at most.
    pub const SOURCES_MAX: u32 = 131_072;
    /// Array of [`SourceRow`](super::SourceRow): most of what the IPv4 sources of [`SOURCES`] sent. The kernel side gives a known
    /// source a place and counts; userspace takes the place back when it removes the source.
    pub const SOURCES4: &str = "SOURCES4";
    /// Rows of [`SOURCES4`], 8 MiB: of 64k sources one in thirty finds both places of its row taken.
    pub const SOURCES4_ROWS: u32 = 131_072;
    /// Array of [`GateRow`](super::GateRow): the gate before [`SOURCES`]. A cell remembers the last unknown source that fell
    /// into it (14 bits) and how often it came in a row (2 bits). Userspace never touches it.
    pub const GATE: &str = "GATE";
    /// Rows of [`GATE`]: 2²⁰ cells, 2 MiB.
    pub const GATE_ROWS: u32 = 32_768;
    /// Per-CPU array of `u64`: state of the token buckets, by the `BUCKET_` numbers.
    pub const BUCKETS: &str = "BUCKETS";
    /// Sources taken in at once, while there is room for strangers.
    pub const BUCKET_NEW_SOURCE: u32 = 0;
    /// Sources taken in because they came again.
    pub const BUCKET_RETURNING: u32 = 1;
    /// SYNs of sources that are not in [`SOURCES`].
    pub const BUCKET_UNKNOWN_SYN: u32 = 2;
    /// Events.
    pub const BUCKET_EVENT: u32 = 3;
    /// Buckets.
    pub const BUCKETS_MAX: u32 = 4;
    /// Per-CPU array of [`Counter`](super::Counter) by [`outcome`](super::outcome) number; the truth is the sum over CPUs.
    pub const STATS: &str = "STATS";
    /// Ring buffer of [`Event`](super::Event).
    pub const EVENTS: &str = "EVENTS";
    /// Bytes of [`EVENTS`].
    pub const EVENTS_BYTES: u32 = 262_144;
}
