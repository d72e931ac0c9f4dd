//! The embedded program in the running kernel, its maps within reach.

use std::net::IpAddr;
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use gateway_common::{
    ALLOW_CONFIGURED, BanRow, CONFIG_MAGIC, Config, Counter, Deny, Event, Source, SourceKey, SourceRow, ban_bit,
    ban_row, maps, net_bits_v4, net_bits_v6, outcome, reason, source_bit, source_row,
};

use rustix::thread::{CpuSet, sched_setaffinity};

use super::frame::SMTP;

/// `XDP_DROP` and `XDP_PASS`.
const ACTIONS: [(u32, Verdict); 2] = [(1, Verdict::Drop), (2, Verdict::Pass)];

/// The program for cards with Ethernet headers, and the one for those without.
const ETHERNET: &str = "smtp_gateway";
const IP: &str = "smtp_gateway_ip";

/// The shortest frame the kernel takes for a test: an Ethernet header.
pub const SHORTEST: usize = 14;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It does not.
    Drop,
}

/// What became of a frame, and what it was counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Whether it goes on.
    pub verdict: Verdict,
    /// The counter's name.
    pub outcome: &'static str,
    /// Whether it was counted as a connection attempt.
    pub is_attempt: bool,
}

/// The program.
#[derive(Debug)]
pub struct Rig {
    ebpf: Ebpf,
}

/// No limits, everything tracked.
pub fn unlimited() -> Config {
    Config {
        magic: CONFIG_MAGIC,
        flags: 0,
        generation: 1,
        seed: 7,
        syn_interval_ns: 0,
        syn_burst_ns: 0,
        unknown_syn_interval_ns: 0,
        unknown_syn_burst_ns: 0,
        new_source_interval_ns: 0,
        new_source_burst_ns: 0,
        returning_interval_ns: 0,
        returning_burst_ns: 0,
        event_interval_ns: 0,
        event_burst_ns: 0,
        returning_packets: 3,
        reserved: 0,
    }
}

/// An entry of the deny lists that holds for ever.
pub fn deny(cause: u32) -> Deny {
    Deny {
        until_ns: u64::MAX,
        since_ns: 1,
        dropped: 0,
        last_dropped_ns: 0,
        cause,
        reason: reason::RELAY_ATTEMPTS,
        flags: 0,
        reserved: 0,
    }
}

impl Rig {
    /// Without limits, and with a listener on port 25.
    pub fn load() -> Result<Self, String> {
        Self::load_with(&[])
    }

    /// The same with other capacities of some maps.
    pub fn load_with(capacities: &[(&'static str, u32)]) -> Result<Self, String> {
        let mut loader = EbpfLoader::new();
        for &(map, entries) in capacities {
            loader.map_max_entries(map, entries);
        }
        let ebpf = loader.load(smtp_gateway::kernel::OBJECT).map_err(|error| format!("no BPF: {error:?}"))?;
        let mut rig = Self { ebpf };
        stay();
        for name in [ETHERNET, IP] {
            rig.xdp(name).load().map_err(|error| format!("the program {name} does not load: {error}"))?;
        }
        rig.configure(unlimited());
        rig.set_ports(&[SMTP]);
        Ok(rig)
    }

    fn xdp(&mut self, name: &str) -> &mut Xdp {
        self.ebpf.program_mut(name).expect("the program").try_into().expect("an XDP program")
    }

    /// Writes the configuration.
    pub fn configure(&mut self, config: Config) {
        self.array::<Config>(maps::CONFIG).set(0, config, 0).expect("CONFIG");
    }

    /// Makes these the listeners' ports, besides those that are.
    pub fn set_ports(&mut self, ports: &[u16]) {
        let mut words = self.array::<u64>(maps::PORTS);
        for port in ports {
            let word = u32::from(port / 64);
            let bits = words.get(&word, 0).expect("PORTS") | 1 << (port % 64);
            words.set(word, bits, 0).expect("PORTS");
        }
    }

    /// Gives an interface flags.
    pub fn set_interface(&mut self, index: u32, flags: u32) {
        self.hash::<u32, u32>(maps::INTERFACES).insert(index, flags, 0).expect("INTERFACES");
    }

    /// Bans an address, with its bit.
    pub fn ban(&mut self, address: &str, deny: Deny) {
        self.ban_key(key(address), deny);
    }

    /// The same by key.
    pub fn ban_key(&mut self, key: SourceKey, deny: Deny) {
        let (word, mask) = ban_bit(key);
        let mut bits = self.array::<u64>(maps::BITS);
        let known = bits.get(&word, 0).expect("BITS");
        bits.set(word, known | mask, 0).expect("BITS");
        if let IpAddr::V4(address) = key.address() {
            let mut row = self.ban_row(key);
            let is_in = row.put(address.octets(), &deny);
            row.elsewhere += u32::from(!is_in);
            self.array::<BanRow>(maps::BANS4).set(ban_row(key), row, 0).expect("BANS4");
            if is_in {
                return;
            }
        }
        self.hash(maps::BANS).insert(key, deny, 0).expect("BANS");
    }

    /// Lifts a ban; its bit stays, which is allowed.
    pub fn unban(&mut self, address: &str) {
        let key = key(address);
        if let IpAddr::V4(address) = key.address() {
            let mut row = self.ban_row(key);
            if row.remove(address.octets()) {
                return self.array::<BanRow>(maps::BANS4).set(ban_row(key), row, 0).expect("BANS4");
            }
        }
        self.hash::<SourceKey, Deny>(maps::BANS).remove(&key).expect("a ban");
    }

    /// The ban of an address.
    pub fn banned(&mut self, address: &str) -> Deny {
        let key = key(address);
        let in_row = match key.address() {
            IpAddr::V4(address) => self.ban_row(key).get(address.octets()),
            IpAddr::V6(_) => None,
        };
        in_row.unwrap_or_else(|| self.hash(maps::BANS).get(&key, 0).expect("a ban"))
    }

    /// The row of an IPv4 address's ban.
    pub fn ban_row(&mut self, key: SourceKey) -> BanRow {
        self.array::<BanRow>(maps::BANS4).get(&ban_row(key), 0).expect("BANS4")
    }

    /// The entry of the deny list that an address falls under.
    pub fn denied(&mut self, address: &str) -> Deny {
        match address.parse().expect("an address") {
            IpAddr::V4(address) => self.trie(maps::DENY4).get(&Key::new(32, address.octets()), 0),
            IpAddr::V6(address) => self.trie(maps::DENY6).get(&Key::new(128, address.octets()), 0),
        }
        .expect("an entry")
    }

    /// Puts a network of at least /16, or /32, on the deny list.
    pub fn deny(&mut self, network: &str, deny: Deny) {
        self.put(network, [maps::DENY4, maps::DENY6], deny, 1);
    }

    /// The same for the allow list.
    pub fn allow(&mut self, network: &str) {
        self.put(network, [maps::ALLOW4, maps::ALLOW6], ALLOW_CONFIGURED, 0);
    }

    fn put<V: Pod>(&mut self, network: &str, [v4, v6]: [&str; 2], value: V, bit: u32) {
        let (address, length) = network.split_once('/').expect("a network");
        let length = length.parse().expect("a prefix length");
        let (word, shift) = match address.parse().expect("an address") {
            IpAddr::V4(address) => {
                let octets = address.octets();
                self.trie(v4).insert(&Key::new(length, octets), value, 0).expect(v4);
                net_bits_v4(octets)
            }
            IpAddr::V6(address) => {
                let octets = address.octets();
                self.trie(v6).insert(&Key::new(length, octets), value, 0).expect(v6);
                net_bits_v6(octets)
            }
        };
        let mut bits = self.array::<u64>(maps::NET_BITS);
        let known = bits.get(&word, 0).expect("NET_BITS");
        bits.set(word, known | 1 << (shift + bit), 0).expect("NET_BITS");
    }

    /// What is known of an address.
    pub fn source(&mut self, address: &str) -> Option<Source> {
        let key = key(address);
        let mut known = self.hash(maps::SOURCES).get(&key, 0).ok()?;
        if let IpAddr::V4(address) = key.address() {
            self.source_row(source_row(key)).add_to(address.octets(), &mut known);
        }
        Some(known)
    }

    /// A row of known IPv4 sources.
    pub fn source_row(&mut self, number: u32) -> SourceRow {
        self.array(maps::SOURCES4).get(&number, 0).expect("SOURCES4")
    }

    /// Makes it look as if nobody knew this source.
    pub fn clear_source_bit(&mut self, address: &str) {
        let (word, _) = source_bit(key(address));
        self.array::<u64>(maps::BITS).set(word, 0, 0).expect("BITS");
    }

    /// Has the tries asked for every address: what a network shorter than the bits' groups needs.
    pub fn ask_everything(&mut self) {
        let mut bits = self.array::<u64>(maps::NET_BITS);
        for word in 0..maps::NET_BITS_WORDS {
            bits.set(word, u64::MAX, 0).expect("NET_BITS");
        }
    }

    /// How many sources are tracked.
    pub fn sources(&mut self) -> usize {
        self.hash::<SourceKey, Source>(maps::SOURCES).keys().count()
    }

    /// Sends a frame through.
    pub fn send(&mut self, frame: &[u8]) -> Verdict {
        self.repeat(frame, 1).0
    }

    /// Sends a frame through so many times; the last verdict, and how long one took.
    pub fn repeat(&mut self, frame: &[u8], times: u32) -> (Verdict, Duration) {
        self.run(ETHERNET, frame, times)
    }

    fn run(&mut self, program: &str, packet: &[u8], times: u32) -> (Verdict, Duration) {
        let options = TestRunOptions { data_in: Some(packet), repeat: times, ..TestRunOptions::new() };
        let result = self.xdp(program).test_run(options).expect("a test run");
        let verdict = ACTIONS.iter().find(|(action, _)| *action == result.return_value);
        (verdict.expect("pass or drop").1, result.duration)
    }

    /// A counter, summed over CPUs.
    pub fn counter(&mut self, number: u32) -> Counter {
        let stats: PerCpuArray<_, Counter> = self.map(maps::STATS).try_into().expect("STATS");
        let mut sum = Counter::default();
        for counter in stats.get(&number, 0).expect("a counter").iter() {
            sum.count += counter.count;
            sum.bytes += counter.bytes;
            sum.syn += counter.syn;
        }
        sum
    }

    /// How often something was counted.
    pub fn count(&mut self, number: u32) -> u64 {
        self.counter(number).count
    }

    fn outcomes(&mut self) -> Vec<Counter> {
        (0..outcome::OUTCOMES).map(|number| self.counter(number)).collect()
    }

    /// What becomes of a frame. That it counts under one outcome, once and with all its bytes, holds for every frame, and is
    /// asserted here.
    pub fn judge(&mut self, frame: &[u8]) -> Judged {
        self.judge_by(ETHERNET, frame)
    }

    /// The same of a packet without an Ethernet header.
    pub fn judge_ip(&mut self, packet: &[u8]) -> Judged {
        self.judge_by(IP, packet)
    }

    fn judge_by(&mut self, program: &str, frame: &[u8]) -> Judged {
        let before = self.outcomes();
        let (verdict, _) = self.run(program, frame, 1);
        let after = self.outcomes();
        let mut rose = (0..).zip(before.iter().zip(&after)).filter(|(_, (before, after))| before != after);
        let (number, (before, after)) = rose.next().expect("an outcome");
        assert_eq!(rose.next(), None, "one outcome");
        assert_eq!(after.count - before.count, 1, "counted once");
        assert_eq!(after.bytes - before.bytes, u64::try_from(frame.len()).expect("a frame"), "all its bytes");
        Judged { verdict, outcome: outcome::name(number), is_attempt: after.syn > before.syn }
    }

    /// Events that were not read yet.
    pub fn events(&mut self) -> Vec<Event> {
        let mut ring = RingBuf::try_from(self.map(maps::EVENTS)).expect("EVENTS");
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(Event::from_bytes(&item).expect("an event"));
        }
        events
    }

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.ebpf.map_mut(name).expect("a map")
    }

    fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        self.map(name).try_into().expect("an array")
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.map(name).try_into().expect("a hash")
    }

    fn trie<K: Pod, V: Pod>(&mut self, name: &str) -> LpmTrie<&mut MapData, K, V> {
        self.map(name).try_into().expect("a trie")
    }
}

/// Keeps this thread on the CPU it is on: token buckets are a CPU's own.
fn stay() {
    let mut cpus = CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &cpus).expect("a CPU of one's own");
}

/// Nanoseconds of the clock that the program goes by.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("a time since boot");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("less than a second")
}

/// The key of an address.
pub fn key(address: &str) -> SourceKey {
    SourceKey::of(address.parse().expect("an address")).expect("a possible source")
}
