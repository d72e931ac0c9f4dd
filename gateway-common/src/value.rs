//! Values of the maps.

use core::mem::size_of;

use crate::outcome::DROP_BAN;

/// `Deny::flags`: every packet is dropped, not only connection attempts. Cuts mail in transfer; never set by automation.
pub const DENY_ALL_PACKETS: u32 = 1;

/// Value of `ALLOW4` and `ALLOW6`: the administrator's allow list.
pub const ALLOW_CONFIGURED: u32 = 1;
/// Value of `ALLOW4` and `ALLOW6`: what must never be banned whatever the list says (loopback, backends, load balancers).
pub const ALLOW_AUTOMATIC: u32 = 2;

/// Flag in `INTERFACES`: strangers are behind it, so bogons and addresses the backend trusts cannot come from there.
pub const INTERFACE_OUTSIDE: u32 = 1;

/// How the kernel side behaves. An interval is the time one packet costs in a token bucket, a burst the time a bucket may
/// be ahead; an interval of 0 means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`CONFIG_MAGIC`](crate::CONFIG_MAGIC).
    pub magic: u32,
    /// [`CONFIG_MONITOR_ONLY`](crate::CONFIG_MONITOR_ONLY).
    pub flags: u32,
    /// Rises with every write.
    pub generation: u64,
    /// Random, chosen once.
    pub seed: u64,
    /// SYNs of one source.
    pub syn_interval_ns: u64,
    /// SYNs of one source.
    pub syn_burst_ns: u64,
    /// SYNs of all sources that are not tracked, on one CPU: what a flood of forged sources may cost.
    pub unknown_syn_interval_ns: u64,
    /// SYNs of all sources that are not tracked, on one CPU.
    pub unknown_syn_burst_ns: u64,
    /// New sources that are tracked from their first packet on, on one CPU.
    pub new_source_interval_ns: u64,
    /// New sources that are tracked from their first packet on, on one CPU.
    pub new_source_burst_ns: u64,
    /// Sources that are tracked because they came again, on one CPU.
    pub returning_interval_ns: u64,
    /// Sources that are tracked because they came again, on one CPU.
    pub returning_burst_ns: u64,
    /// Events on one CPU.
    pub event_interval_ns: u64,
    /// Events on one CPU.
    pub event_burst_ns: u64,
    /// Packets in a row after which a source counts as come again, at most [`GATE_COUNT`].
    pub returning_packets: u32,
    /// Zero.
    pub reserved: u32,
}

/// A ban, a banned network, a bogon, or an address that must not come from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Deny {
    /// From then on it has no effect, whether userspace lives or not. `u64::MAX` for what is no ban (bogons, trusted
    /// addresses).
    pub until_ns: u64,
    /// When it was written.
    pub since_ns: u64,
    /// Packets dropped by it (in monitor-only mode: that would have been). Written by the kernel side.
    pub dropped: u64,
    /// When the last packet was dropped; 0: never. Written by the kernel side.
    pub last_dropped_ns: u64,
    /// Which counter: [`outcome::DROP_BAN`](crate::outcome::DROP_BAN) and its like.
    pub cause: u32,
    /// Why, of [`reason`](crate::reason).
    pub reason: u32,
    /// [`DENY_ALL_PACKETS`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Two bans of IPv4 addresses, a cache line whole: a banned packet costs one line of memory besides the bits. Which row is an
/// address's, [`ban_row`](crate::ban_row) says; where both places are taken, the ban is in `BANS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct BanRow {
    /// Who; zero: nobody.
    pub address: [[u8; 4]; 2],
    /// Why, of [`reason`](crate::reason).
    pub reason: [u16; 2],
    /// Bans of this row's that are in `BANS`. Raised **before** the first is put there.
    pub elsewhere: u32,
    /// From then on a ban has no effect, whether userspace lives or not.
    pub until_ns: [u64; 2],
    /// When it was written.
    pub since_ns: [u64; 2],
    /// Packets dropped by it (in monitor-only mode: that would have been). Written by the kernel side.
    pub dropped: [u64; 2],
}

impl BanRow {
    /// The place of an address.
    #[inline(always)]
    pub fn place(&self, address: [u8; 4]) -> Option<usize> {
        match address {
            [0, 0, 0, 0] => None,
            address if self.address[0] == address => Some(0),
            address if self.address[1] == address => Some(1),
            _ => None,
        }
    }

    /// A ban as it stands in other tables.
    pub fn get(&self, address: [u8; 4]) -> Option<Deny> {
        let place = self.place(address)?;
        Some(Deny {
            until_ns: self.until_ns[place],
            since_ns: self.since_ns[place],
            dropped: self.dropped[place],
            last_dropped_ns: 0,
            cause: DROP_BAN,
            reason: self.reason[place].into(),
            flags: 0,
            reserved: 0,
        })
    }

    /// Puts a ban in, or changes it, and says whether there was room for it. Only a plain ban of one address fits.
    pub fn put(&mut self, address: [u8; 4], ban: &Deny) -> bool {
        let free = || (0..2).find(|place| self.address[*place] == [0; 4]);
        let (Some(place), Ok(reason)) = (self.place(address).or_else(free), u16::try_from(ban.reason)) else {
            return false;
        };
        if address == [0; 4] || ban.cause != DROP_BAN || ban.flags != 0 {
            return false;
        }
        self.address[place] = address;
        self.reason[place] = reason;
        (self.until_ns[place], self.since_ns[place]) = (ban.until_ns, ban.since_ns);
        self.dropped[place] = ban.dropped;
        true
    }

    /// Takes a ban out, and says whether it was there.
    pub fn remove(&mut self, address: [u8; 4]) -> bool {
        let Some(place) = self.place(address) else { return false };
        self.address[place] = [0; 4];
        (self.until_ns[place], self.since_ns[place], self.dropped[place]) = (0, 0, 0);
        true
    }
}

/// What one source sent to the listeners' ports. What a ban dropped stands in the ban, not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Source {
    /// Packets, dropped ones included.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// Connection attempts; their address may be forged.
    pub syn: u64,
    /// Packets with FIN or RST.
    pub fin_rst: u64,
    /// Packets dropped by the SYN limit (in monitor-only mode: that would have been).
    pub dropped: u64,
    /// When it was taken in.
    pub first_seen_ns: u64,
    /// Its last packet.
    pub last_seen_ns: u64,
    /// The SYN limit's bucket: when it is empty again (GCRA's theoretical arrival time).
    pub syn_bucket_ns: u64,
}

/// What two known IPv4 sources sent besides SYNs and ends, a cache line whole: mail in transfer costs one line of memory
/// besides the bits, where a hash table costs three, one after another. Which row is an address's,
/// [`source_row`](crate::source_row) says. Who is known, `SOURCES` alone says; what is here comes on top of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(8))]
pub struct SourceRow {
    /// Who; zero: nobody.
    pub address: [[u8; 4]; 2],
    /// Packets.
    pub packets: [u64; 2],
    /// Bytes of those packets.
    pub bytes: [u64; 2],
    /// The last of them.
    pub last_seen_ns: [u64; 2],
    /// Zero.
    pub reserved: u64,
}

impl SourceRow {
    /// Adds what is here of an address to its account.
    pub fn add_to(&self, address: [u8; 4], account: &mut Source) {
        for place in self.places(address) {
            account.packets += self.packets[place];
            account.bytes += self.bytes[place];
            account.last_seen_ns = account.last_seen_ns.max(self.last_seen_ns[place]);
        }
    }

    /// Takes a source out, and says whether it was there.
    pub fn remove(&mut self, address: [u8; 4]) -> bool {
        let before = *self;
        for place in before.places(address) {
            self.address[place] = [0; 4];
            (self.packets[place], self.bytes[place], self.last_seen_ns[place]) = (0, 0, 0);
        }
        *self != before
    }

    /// Both can be the same source's: two CPUs may have given it one each.
    fn places(&self, address: [u8; 4]) -> impl Iterator<Item = usize> {
        (0..2).filter(move |place| address != [0; 4] && self.address[*place] == address)
    }
}

/// One counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Packets, or whatever is counted.
    pub count: u64,
    /// Bytes of those packets, from the Ethernet header on; 0 where no packets are counted.
    pub bytes: u64,
    /// Those packets of a listener's that asked for a connection (SYN without ACK). Over all outcomes: SYNs seen; over
    /// those from [`outcome::DROP`](crate::outcome::DROP) on: SYNs dropped.
    pub syn: u64,
}

/// Cells of the gate, a cache line of them: an array map would round a lone cell up to eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct GateRow {
    /// The source in the upper 14 bits, how often it came in those of [`GATE_COUNT`]. Of forged sources one in 16,384 looks
    /// like the last in its cell and passes the strangers' limit; one in 2²⁸ does so twice and is taken in.
    pub cells: [u16; 32],
}

/// What counts in a cell of the gate, and so how far it counts.
pub const GATE_COUNT: u16 = 3;

/// Something began: at the 1st, 2nd, 4th, 8th … packet dropped of one source or network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When.
    pub time_ns: u64,
    /// The full source address, IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// How many packets of it were dropped so far.
    pub dropped: u64,
    /// Which counter, of [`outcome`](crate::outcome); in monitor-only mode one of the `WOULD_DROP` half.
    pub outcome: u32,
    /// Why it is banned, of [`reason`](crate::reason); 0 when it is not.
    pub reason: u32,
    /// The interface it came by.
    pub interface: u32,
    /// The listener's port, in network byte order.
    pub port: [u8; 2],
    /// Zero.
    pub reserved: [u8; 2],
}

impl Event {
    /// An event as it comes out of the ring buffer; `None` if it is not as long as one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (dropped, rest) = rest.split_first_chunk()?;
        let (outcome, rest) = rest.split_first_chunk()?;
        let (reason, rest) = rest.split_first_chunk()?;
        let (interface, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        Some(Self {
            time_ns: u64::from_ne_bytes(*time),
            source: *source,
            dropped: u64::from_ne_bytes(*dropped),
            outcome: u32::from_ne_bytes(*outcome),
            reason: u32::from_ne_bytes(*reason),
            interface: u32::from_ne_bytes(*interface),
            port: *port,
            reserved: rest.try_into().ok()?,
        })
    }
}

// No padding: the sum of the fields is the size.
const _: () = assert!(size_of::<Config>() == 13 * 8 + 2 * 4);
const _: () = assert!(size_of::<Deny>() == 4 * 8 + 4 * 4);
const _: () = assert!(size_of::<BanRow>() == 64);
const _: () = assert!(size_of::<Counter>() == 24);
const _: () = assert!(size_of::<Source>() == 64);
const _: () = assert!(size_of::<SourceRow>() == 64);
const _: () = assert!(size_of::<Event>() == 48);

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "aya::Pod promises what the compiler cannot check")]

    use super::{BanRow, Config, Counter, Deny, Event, GateRow, Source, SourceRow};
    use crate::SourceKey;

    // SAFETY: repr(C), integers only, no padding (asserted above), Copy and 'static: any bytes are a valid value.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Deny {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BanRow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Source {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SourceRow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for GateRow {}
    // SAFETY: as above; eight bytes.
    unsafe impl aya::Pod for SourceKey {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_sources_adds_up_both_places_and_frees_them() {
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]];
        let row = |address| SourceRow { address, packets: [2, 3], bytes: [20, 30], last_seen_ns: [9, 5], reserved: 0 };
        let table = [
            ([one, other], [2, 20, 9], [0, 3]),
            ([other, one], [3, 30, 7], [2, 0]),
            ([one, one], [5, 50, 9], [0, 0]),
            ([[0; 4], other], [0, 0, 7], [2, 3]),
        ];
        for (address, [packets, bytes, last_seen_ns], left) in table {
            let mut account = Source { last_seen_ns: 7, ..Source::default() };
            let mut row = row(address);
            row.add_to(one, &mut account);
            assert_eq!(account, Source { packets, bytes, last_seen_ns, ..Source::default() }, "{address:?}");
            row.add_to([0; 4], &mut account);
            assert_eq!(account.packets, packets, "nobody has no account");
            assert_eq!(row.remove(one), left != [2, 3], "{address:?}");
            assert_eq!((row.packets, row.address.contains(&one)), (left, false));
        }
    }
}
