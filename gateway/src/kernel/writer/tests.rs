use std::net::IpAddr;

use gateway_common::{ALLOW_AUTOMATIC, ALLOW_CONFIGURED, reason};
use proptest::prelude::*;

use super::*;

/// Maps in memory, and the kernel side's way of asking them.
#[derive(Debug, Default, Clone)]
struct Memory {
    bits: HashMap<(bool, u32), u64>,
    bans: HashMap<SourceKey, Deny>,
    denied: HashMap<IpNet, Deny>,
    allowed: HashMap<IpNet, u32>,
    /// Entries that each map holds.
    capacity: Option<usize>,
}

impl Memory {
    fn bit(&self, field: BitField, number: u32) -> bool {
        let word = self.bits.get(&(field == BitField::Bans, number / 64)).copied().unwrap_or_default();
        word >> (number % 64) & 1 == 1
    }

    fn longest<V: Copy>(map: &HashMap<IpNet, V>, ip: IpAddr) -> Option<V> {
        let holding = map.iter().filter(|(network, _)| network.contains(&ip));
        holding.max_by_key(|(network, _)| network.prefix_len()).map(|(_, value)| *value)
    }

    /// As the program decides.
    fn drops(&self, ip: IpAddr, now_ns: u64) -> bool {
        let number = |(word, shift): (u32, u32)| word * 64 + shift;
        let group = number(match ip {
            IpAddr::V4(ip) => net_bits_v4(ip.octets()),
            IpAddr::V6(ip) => net_bits_v6(ip.octets()),
        });
        if self.bit(BitField::Networks, group) && Self::longest(&self.allowed, ip).is_some() {
            return false;
        }
        let source = SourceKey::of(ip).unwrap();
        if self.bit(BitField::Bans, ban_bit_number(source))
            && self.bans.get(&source).is_some_and(|deny| now_ns < deny.until_ns)
        {
            return true;
        }
        self.bit(BitField::Networks, group + 1)
            && Self::longest(&self.denied, ip).is_some_and(|deny| now_ns < deny.until_ns)
    }

    fn room(&self, used: usize) -> Result<(), String> {
        if self.capacity.is_some_and(|capacity| used >= capacity) { Err("full".to_owned()) } else { Ok(()) }
    }
}

impl Tables for Memory {
    type Error = String;

    fn bits(&self, field: BitField, word: u32) -> Result<u64, String> {
        Ok(self.bits.get(&(field == BitField::Bans, word)).copied().unwrap_or_default())
    }

    fn set_bits(&mut self, field: BitField, word: u32, bits: u64) -> Result<(), String> {
        self.bits.insert((field == BitField::Bans, word), bits);
        Ok(())
    }

    fn bans(&self) -> Result<Vec<(SourceKey, Deny)>, String> {
        Ok(self.bans.iter().map(|(source, deny)| (*source, *deny)).collect())
    }

    fn ban(&self, source: SourceKey) -> Result<Option<Deny>, String> {
        Ok(self.bans.get(&source).copied())
    }

    fn put_ban(&mut self, source: SourceKey, deny: Deny) -> Result<(), String> {
        assert!(self.bit(BitField::Bans, ban_bit_number(source)), "the bit first");
        if !self.bans.contains_key(&source) {
            self.room(self.bans.len())?;
        }
        self.bans.insert(source, deny);
        Ok(())
    }

    fn remove_ban(&mut self, source: SourceKey) -> Result<(), String> {
        assert!(self.bit(BitField::Bans, ban_bit_number(source)), "the bit last");
        self.bans.remove(&source);
        Ok(())
    }

    fn denied(&self) -> Result<Vec<(IpNet, Deny)>, String> {
        Ok(self.denied.iter().map(|(network, deny)| (*network, *deny)).collect())
    }

    fn denied_network(&self, network: IpNet) -> Result<Option<Deny>, String> {
        Ok(self.denied.get(&network).copied())
    }

    fn put_denied(&mut self, network: IpNet, deny: Deny) -> Result<(), String> {
        if !self.denied.contains_key(&network) {
            self.room(self.denied.len())?;
        }
        self.denied.insert(network, deny);
        Ok(())
    }

    fn remove_denied(&mut self, network: IpNet) -> Result<(), String> {
        self.denied.remove(&network);
        Ok(())
    }

    fn allowed(&self) -> Result<Vec<(IpNet, u32)>, String> {
        Ok(self.allowed.iter().map(|(network, value)| (*network, *value)).collect())
    }

    fn put_allowed(&mut self, network: IpNet, value: u32) -> Result<(), String> {
        self.allowed.insert(network, value);
        Ok(())
    }

    fn remove_allowed(&mut self, network: IpNet) -> Result<(), String> {
        self.allowed.remove(&network);
        Ok(())
    }
}

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn writer(allow: &[(IpNet, u32)]) -> Writer<Memory> {
    Writer::new(Memory::default(), allow, &[], 0).unwrap()
}

fn ban(writer: &mut Writer<Memory>, text: &str) {
    writer.put(network(text), 100, 1, reason::MANUAL).unwrap();
}

fn drops(writer: &Writer<Memory>, ip: &str) -> bool {
    writer.tables().drops(ip.parse().unwrap(), 99)
}

fn bits_set(writer: &Writer<Memory>) -> u32 {
    writer.tables().bits.values().map(|bits| bits.count_ones()).sum()
}

#[test]
fn networks_of_every_width_are_found() {
    for (banned, inside, outside) in [
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
        ("192.0.0.0/16", "192.0.255.255", "192.1.0.0"),
        ("192.0.0.0/15", "192.1.255.255", "192.2.0.0"),
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("2001:db8::/64", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("2001:db8::/31", "2001:db9:ffff::1", "2001:dba::1"),
        ("2001::/16", "2001:ffff::1", "2002::1"),
        ("2000::/3", "3fff::1", "4000::1"),
    ] {
        let mut writer = writer(&[]);
        ban(&mut writer, banned);
        assert!(drops(&writer, inside) && !drops(&writer, outside), "{banned}");
        assert!(!writer.tables().drops(inside.parse().unwrap(), 100), "{banned} ends");
        writer.remove(network(banned)).unwrap();
        assert!(!drops(&writer, inside) && bits_set(&writer) == 0, "{banned} leaves something behind");
    }
}

#[test]
fn the_allow_list_goes_before() {
    let mut writer =
        writer(&[(network("192.0.2.128/25"), ALLOW_CONFIGURED), (network("2001:db8:a::/48"), ALLOW_AUTOMATIC)]);
    for banned in ["192.0.2.0/24", "192.0.2.200/32", "2001:db8::/32", "2001:db8:a::/64"] {
        ban(&mut writer, banned);
    }
    for (ip, dropped) in [("192.0.2.1", true), ("192.0.2.200", false), ("2001:db8::1", true), ("2001:db8:a::1", false)]
    {
        assert_eq!(drops(&writer, ip), dropped, "{ip}");
    }
    writer.allow(network("192.0.2.1/32"), ALLOW_AUTOMATIC).unwrap();
    assert!(!drops(&writer, "192.0.2.1"));
}

#[test]
fn what_was_counted_stays_counted() {
    let mut writer = writer(&[]);
    for banned in ["192.0.2.1/32", "192.0.2.0/24"] {
        ban(&mut writer, banned);
    }
    for deny in writer.tables.bans.values_mut().chain(writer.tables.denied.values_mut()) {
        (deny.dropped, deny.last_dropped_ns) = (7, 50);
    }
    for banned in ["192.0.2.1/32", "192.0.2.0/24"] {
        writer.put(network(banned), 200, 60, reason::RELAY_ATTEMPTS).unwrap();
    }
    for (_, deny) in writer.bans().unwrap() {
        assert_eq!((deny.dropped, deny.last_dropped_ns, deny.until_ns, deny.since_ns), (7, 50, 200, 60));
        assert_eq!(deny.reason, reason::RELAY_ATTEMPTS);
    }
}

#[test]
fn a_full_map_leaves_no_bit_behind() {
    let mut writer = writer(&[]);
    writer.tables.capacity = Some(1);
    ban(&mut writer, "192.0.2.1/32");
    ban(&mut writer, "192.0.2.0/24");
    let before = bits_set(&writer);
    assert!(writer.put(network("198.51.100.1/32"), 100, 1, reason::MANUAL).is_err());
    assert!(writer.put(network("198.51.100.0/24"), 100, 1, reason::MANUAL).is_err());
    assert_eq!(bits_set(&writer), before);
    // A change of what is there needs no room.
    ban(&mut writer, "192.0.2.1/32");
    ban(&mut writer, "192.0.2.0/24");
}

/// Another run left these: what is over goes, what is not stays, the allow list is today's, and lost bits are mended.
#[test]
fn a_restart_takes_over() {
    let mut before = writer(&[(network("203.0.113.0/24"), ALLOW_CONFIGURED), (network("10.0.0.0/8"), ALLOW_AUTOMATIC)]);
    for (text, until_ns) in
        [("192.0.2.1/32", 50), ("192.0.2.2/32", 150), ("198.51.100.0/24", 50), ("2001:db8::/32", 150)]
    {
        before.put(network(text), until_ns, 1, reason::EARLY_TALK).unwrap();
    }
    let mut tables = before.tables;
    tables.bits.clear();
    tables.bits.insert((true, 8), u64::MAX);
    // What stands in odd words is not the writer's.
    tables.bits.insert((true, 7), 1);
    let after = Writer::new(tables, &[(network("203.0.113.0/24"), ALLOW_CONFIGURED)], &[], 100).unwrap();
    let mut bans: Vec<_> = after.bans().unwrap().into_iter().map(|(network, _)| network.to_string()).collect();
    bans.sort();
    assert_eq!(bans, ["192.0.2.2/32", "2001:db8::/32"]);
    for (ip, dropped) in [("192.0.2.1", false), ("192.0.2.2", true), ("198.51.100.1", false), ("2001:db8::1", true)] {
        assert_eq!(after.tables().drops(ip.parse().unwrap(), 100), dropped, "{ip}");
    }
    assert_eq!(after.allowed, HashSet::from([network("203.0.113.0/24")]));
    // One for the source, one for each network, and the sources' own.
    assert_eq!(bits_set(&after), 4);
}

/// What cannot come from outside is denied for ever, gives way to a ban of the same network, and comes back.
#[test]
fn faulty_addresses_outlive_bans() {
    let faults = [(network("10.0.0.0/8"), bogon())];
    let mut writer = Writer::new(Memory::default(), &[], &faults, 0).unwrap();
    assert!(drops(&writer, "10.1.2.3") && writer.bans().unwrap().is_empty());
    ban(&mut writer, "10.0.0.0/8");
    assert_eq!(writer.bans().unwrap().len(), 1);
    writer.remove(network("10.0.0.0/8")).unwrap();
    assert!(drops(&writer, "10.1.2.3") && writer.bans().unwrap().is_empty());
    // A ban over a restart, then its end; then a restart without.
    ban(&mut writer, "10.0.0.0/8");
    let writer = Writer::new(writer.tables, &[], &faults, 50).unwrap();
    assert_eq!(writer.bans().unwrap().len(), 1);
    let writer = Writer::new(writer.tables, &[], &faults, 100).unwrap();
    assert!(drops(&writer, "10.1.2.3") && writer.bans().unwrap().is_empty());
    let writer = Writer::new(writer.tables, &[], &[], 100).unwrap();
    assert!(!drops(&writer, "10.1.2.3") && bits_set(&writer) == 0);
}

fn bogon() -> Deny {
    Deny {
        until_ns: u64::MAX,
        since_ns: 0,
        dropped: 0,
        last_dropped_ns: 0,
        cause: outcome::DROP_BOGON,
        reason: reason::BOGON,
        flags: 0,
        reserved: 0,
    }
}

fn any_network() -> impl Strategy<Value = IpNet> {
    let v4 = (0_u32..4, 0_u32..8, 12_u8..=32).prop_map(|(group, host, length)| {
        IpNet::new(IpAddr::from((0xC000_0200 | (group << 16) | host).to_be_bytes()), length).unwrap().trunc()
    });
    let v6 = (0_u128..4, 0_u128..4, 30_u8..=128).prop_map(|(net, host, length)| {
        let bits = (0x2001_0db8_u128 << 96) | (net << 64) | host;
        IpNet::new(IpAddr::from(bits.to_be_bytes()), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is put in and taken out, over restarts too: the kernel side drops what a plain list would.
    #[test]
    fn the_maps_are_a_list(steps in prop::collection::vec((any_network(), 0_u8..8), 1..60)) {
        let mut writer = writer(&[(network("192.1.2.0/30"), ALLOW_CONFIGURED)]);
        let mut list = HashSet::new();
        for (network, what) in steps {
            match what {
                0 => writer = Writer::new(writer.tables, &[("192.1.2.0/30".parse().unwrap(), ALLOW_CONFIGURED)], &[], 50).unwrap(),
                1..4 => {
                    writer.remove(network).unwrap();
                    list.remove(&network);
                }
                _ => {
                    writer.put(network, 100, 1, reason::MANUAL).unwrap();
                    list.insert(network);
                }
            }
            let ip = network.addr();
            let allowed = ip >= IpAddr::from([192, 1, 2, 0]) && ip <= IpAddr::from([192, 1, 2, 3]);
            let banned = list.iter().any(|banned: &IpNet| banned.contains(&ip));
            prop_assert_eq!(writer.tables().drops(ip, 50), banned && !allowed);
        }
        for network in list {
            writer.remove(network).unwrap();
        }
        // The allow list's own.
        prop_assert_eq!(bits_set(&writer), 1);
    }
}
