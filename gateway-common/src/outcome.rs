//! What became of a packet: the index of its counter in `STATS`. Every packet counts under exactly one outcome below
//! [`OUTCOMES`]; the numbers from there on count other things.
//!
//! The first group are packets that are nobody's business here: they pass, and their sender is not looked at.

/// What the counters are called in `status` and metrics; the index is the number.
pub const NAMES: [&str; COUNTERS as usize] = {
    let mut names = [""; COUNTERS as usize];
    let mut index = 0;
    while index < LIST.len() {
        let (number, name) = LIST[index];
        names[number as usize] = name;
        index += 1;
    }
    names
};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: u32 = $number;)*
        const LIST: &[(u32, &str)] = &[$(($name, $text)),*];
    };
}

counters! {
    /// Neither IPv4 nor IPv6.
    PASS_NOT_IP = 0, "not_ip";
    /// Another transport than TCP.
    PASS_NOT_TCP = 1, "not_tcp";
    /// Not a listener's port.
    PASS_OTHER_PORT = 2, "other_port";
    /// A later fragment: its connection was judged by the first one.
    PASS_FRAGMENT = 3, "fragment";
    /// The frame ends within a header.
    PASS_TRUNCATED = 4, "truncated";
    /// A header contradicts itself, so the IP stack discards the packet.
    PASS_MALFORMED = 5, "malformed";
    /// More IPv6 extension headers than are followed, or encrypted ones.
    PASS_EXTENSIONS = 6, "extensions";
    /// The program is not configured.
    PASS_UNCONFIGURED = 7, "unconfigured";
    /// A map that must be there is not, or an entry of the deny lists is none.
    PASS_FAULT = 8, "fault";
    /// To a listener, and counted for its source.
    PASS_TRACKED = 9, "tracked";
    /// To a listener, from the allow list.
    PASS_ALLOWED = 10, "allowed";
    /// To a listener, from a banned source, and no connection attempt: mail in transfer is not cut.
    PASS_BANNED_ESTABLISHED = 11, "banned_established";
    /// To a listener, from a source that has not come often enough to be tracked while many strangers come.
    PASS_UNTRACKED = 12, "untracked";
    /// To a listener, from a source that would be tracked, but the table is full.
    PASS_TABLE_FULL = 13, "table_full";
    /// To a listener, from an address that cannot be one (`::/16`).
    PASS_IMPOSSIBLE_SOURCE = 14, "impossible_source";
    /// A banned source's connection attempt.
    DROP_BAN = 15, "ban";
    /// A connection attempt from a banned network.
    DROP_BAN_NETWORK = 16, "ban_network";
    /// More connection attempts than one source may make.
    DROP_SYN_RATE = 17, "syn_rate";
    /// More connection attempts than strangers may make together.
    DROP_UNKNOWN_RATE = 18, "unknown_rate";
    /// From an address that is nobody's on the Internet.
    DROP_BOGON = 19, "bogon";
    /// From outside, with an address that the backend trusts.
    DROP_SPOOFED = 20, "spoofed";
    /// A first fragment without a whole TCP header, or the one that would follow it: made to be misread (RFC 1858,
    /// RFC 3128, RFC 7112).
    DROP_TINY_FRAGMENT = 21, "tiny_fragment";
    /// More VLAN tags than anybody has use for: made to be misread.
    DROP_VLAN_DEPTH = 22, "vlan_depth";
    /// Passed in monitor-only mode, where it would have been [`DROP_BAN`]; the next seven likewise.
    WOULD_DROP_BAN = 23, "would_drop_ban";
    /// See [`DROP_BAN_NETWORK`].
    WOULD_DROP_BAN_NETWORK = 24, "would_drop_ban_network";
    /// See [`DROP_SYN_RATE`].
    WOULD_DROP_SYN_RATE = 25, "would_drop_syn_rate";
    /// See [`DROP_UNKNOWN_RATE`].
    WOULD_DROP_UNKNOWN_RATE = 26, "would_drop_unknown_rate";
    /// See [`DROP_BOGON`].
    WOULD_DROP_BOGON = 27, "would_drop_bogon";
    /// See [`DROP_SPOOFED`].
    WOULD_DROP_SPOOFED = 28, "would_drop_spoofed";
    /// See [`DROP_TINY_FRAGMENT`].
    WOULD_DROP_TINY_FRAGMENT = 29, "would_drop_tiny_fragment";
    /// See [`DROP_VLAN_DEPTH`].
    WOULD_DROP_VLAN_DEPTH = 30, "would_drop_vlan_depth";
    /// Sources taken into the table.
    SOURCES_ADDED = 31, "sources_added";
    /// Sources that were not, because the table is full.
    SOURCES_FULL = 32, "sources_full";
    /// Events that found no room in the ring buffer.
    EVENTS_LOST = 33, "events_lost";
    /// Bans that were met after their end and before they were swept.
    BANS_EXPIRED = 34, "bans_expired";
}

/// Outcomes are the numbers below.
pub const OUTCOMES: u32 = SOURCES_ADDED;
/// Outcomes from this one on are packets to the listeners.
pub const LISTENER: u32 = PASS_TRACKED;
/// Outcomes from this one up to [`WOULD_DROP`] are dropped packets.
pub const DROP: u32 = DROP_BAN;
/// Outcomes from this one up to [`OUTCOMES`] are packets that monitor-only mode spared.
pub const WOULD_DROP: u32 = WOULD_DROP_BAN;
/// All counters.
pub const COUNTERS: u32 = 35;

/// The name of a counter; a number from elsewhere has none.
pub fn name(number: u32) -> &'static str {
    usize::try_from(number).ok().and_then(|index| NAMES.get(index)).copied().unwrap_or("unknown")
}
