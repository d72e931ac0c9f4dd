//! The programs that are measured, loaded, and their maps filled.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use gateway_common::{
    BanRow, CONFIG_MAGIC, Config, Deny, Source, SourceKey, ban_bit, ban_row, maps, net_bits_v4, outcome, reason,
    source_bit,
};

use crate::command::repository;

pub(super) const XDP_DROP: u32 = 1;
pub(super) const XDP_PASS: u32 = 2;

pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 16;
const SMTP: u16 = 25;

pub(super) fn said(what: &str) -> impl Fn(&dyn std::error::Error) -> String {
    move |error| match error.source() {
        Some(cause) => format!("{what}: {error}: {cause}"),
        None => format!("{what}: {error}"),
    }
}

/// Which sources the driver gives packets: these bits of an address vary, the others are the base's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub(super) base: Ipv4Addr,
    pub(super) mask: u32,
}

impl Spread {
    pub(super) const fn one(base: Ipv4Addr) -> Self {
        Self { base, mask: 0 }
    }

    /// Every address in it.
    pub(super) fn all(self) -> impl Iterator<Item = Ipv4Addr> {
        let base = u32::from(self.base);
        (0..=self.mask).filter(move |bits| bits & !self.mask == 0).map(move |bits| Ipv4Addr::from(base | bits))
    }

    /// As the driver's map has it: random state, then mask and base.
    fn words(self) -> [u64; 2] {
        [0x2545_f491_4f6c_dd1d, u64::from(self.mask) | u64::from(u32::from(self.base)) << 32]
    }
}

/// The driver, and the empty programs.
pub(in crate::bench) struct Driver {
    ebpf: Ebpf,
}

impl Driver {
    pub(in crate::bench) fn load() -> Result<Self, String> {
        let path = repository().join("gateway-ebpf/prebuilt/bench.bpf.o");
        let object = fs::read(&path).map_err(|error| said("bench.bpf.o")(&error))?;
        let mut ebpf = EbpfLoader::new().load(&object).map_err(|error| said("bench.bpf.o")(&error))?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into().map_err(|error| said(name)(&error))?;
            program.load().map_err(|error| said(name)(&error))?;
        }
        Ok(Self { ebpf })
    }

    pub(in crate::bench) fn program(&mut self, name: &str) -> Result<&mut Xdp, String> {
        let program = self.ebpf.program_mut(name).ok_or_else(|| format!("no program {name}"))?;
        program.try_into().map_err(|error| said(name)(&error))
    }

    /// Nanoseconds a packet for a program, the driver's own included. The last packet must have met with this action, if
    /// one is named: a program that does not do its work is fast.
    pub(super) fn vary(
        &mut self,
        next: &ProgramFd,
        spread: Spread,
        frame: &[u8],
        times: u32,
        action: Option<u32>,
    ) -> Result<f64, String> {
        self.aim(next, spread)?;
        let (took, got) = repeat(self.program("vary")?, frame, times)?;
        match action {
            Some(action) if got != action => Err(format!("XDP action {got} where {action} was due")),
            _ => Ok(took),
        }
    }

    /// Says which program `vary` calls, and with which sources.
    pub(super) fn aim(&mut self, next: &ProgramFd, spread: Spread) -> Result<(), String> {
        let map = self.ebpf.map_mut("SOURCES").ok_or("no map SOURCES")?;
        let mut sources: Array<_, [u64; 2]> = Array::try_from(map).map_err(|error| said("SOURCES")(&error))?;
        sources.set(0, spread.words(), 0).map_err(|error| said("SOURCES")(&error))?;
        let map = self.ebpf.map_mut("NEXT").ok_or("no map NEXT")?;
        let mut programs = ProgramArray::try_from(map).map_err(|error| said("NEXT")(&error))?;
        programs.set(0, next, 0).map_err(|error| said("NEXT")(&error))
    }

    pub(super) fn fd(&mut self, name: &str) -> Result<ProgramFd, String> {
        let fd = self.program(name)?.fd().map_err(|error| said(name)(&error))?;
        fd.try_clone().map_err(|error| said(name)(&error))
    }
}

/// One packet, so many times; the nanoseconds one took, and the last action.
pub(super) fn repeat(program: &Xdp, frame: &[u8], times: u32) -> Result<(f64, u32), String> {
    let options = TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::new() };
    let result = program.test_run(options).map_err(|error| said("test run")(&error))?;
    Ok((nanoseconds(result.duration), result.return_value))
}

#[expect(clippy::cast_precision_loss, reason = "a test run's nanoseconds are few")]
pub(super) fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// The gateway's program.
pub(super) struct Gateway {
    ebpf: Ebpf,
}

impl Gateway {
    /// With the limits a gateway has by default, except that one source may connect as often as it likes: a hot source is
    /// what most works are about.
    pub(super) fn load() -> Result<Self, String> {
        let path = repository().join("gateway-ebpf/prebuilt/smtp-gateway.bpf.o");
        let object = fs::read(&path).map_err(|error| said("smtp-gateway.bpf.o")(&error))?;
        let ebpf = EbpfLoader::new().load(&object).map_err(|error| said("smtp-gateway.bpf.o")(&error))?;
        let mut gateway = Self { ebpf };
        gateway.program()?.load().map_err(|error| said("smtp-gateway.bpf.o")(&error))?;
        gateway.set(maps::CONFIG, 0, defaults())?;
        gateway.set(maps::PORTS, u32::from(SMTP / 64), 1_u64 << (SMTP % 64))?;
        Ok(gateway)
    }

    pub(super) fn program(&mut self) -> Result<&mut Xdp, String> {
        let program = self.ebpf.program_mut("smtp_gateway").ok_or("no program smtp_gateway")?;
        program.try_into().map_err(|error| said("smtp_gateway")(&error))
    }

    pub(super) fn fd(&mut self) -> Result<ProgramFd, String> {
        let program = self.program()?;
        let fd = program.fd().map_err(|error| said("smtp_gateway")(&error))?;
        fd.try_clone().map_err(|error| said("smtp_gateway")(&error))
    }

    fn map<'a, M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>>(
        &'a mut self,
        name: &str,
    ) -> Result<M, String> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| format!("no map {name}"))?;
        map.try_into().map_err(|error: aya::maps::MapError| said(name)(&error))
    }

    fn set<V: Pod>(&mut self, name: &str, index: u32, value: V) -> Result<(), String> {
        let mut map: Array<&mut MapData, V> = self.map(name)?;
        map.set(index, value, 0).map_err(|error| said(name)(&error))
    }

    fn set_bits(&mut self, name: &str, index: u32, bits: u64) -> Result<(), String> {
        let mut map: Array<&mut MapData, u64> = self.map(name)?;
        let known = map.get(&index, 0).map_err(|error| said(name)(&error))?;
        map.set(index, known | bits, 0).map_err(|error| said(name)(&error))
    }

    pub(super) fn ban(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<(), String> {
        for address in addresses {
            let key = SourceKey::v4(address.octets());
            let (word, mask) = ban_bit(key);
            self.set_bits(maps::BITS, word, mask)?;
            let mut rows: Array<&mut MapData, BanRow> = self.map(maps::BANS4)?;
            let mut row = rows.get(&ban_row(key), 0).map_err(|error| said(maps::BANS4)(&error))?;
            let is_in = row.put(address.octets(), &deny(outcome::DROP_BAN));
            row.elsewhere += u32::from(!is_in);
            rows.set(ban_row(key), row, 0).map_err(|error| said(maps::BANS4)(&error))?;
            if is_in {
                continue;
            }
            let mut bans: HashMap<&mut MapData, SourceKey, Deny> = self.map(maps::BANS)?;
            bans.insert(key, deny(outcome::DROP_BAN), 0).map_err(|error| said(maps::BANS)(&error))?;
        }
        Ok(())
    }

    pub(super) fn ban_networks(&mut self, networks: impl Iterator<Item = (Ipv4Addr, u32)>) -> Result<(), String> {
        for (address, length) in networks {
            let (word, shift) = net_bits_v4(address.octets());
            self.set_bits(maps::NET_BITS, word, 2 << shift)?;
            let mut trie: LpmTrie<&mut MapData, [u8; 4], Deny> = self.map(maps::DENY4)?;
            let key = Key::new(length, address.octets());
            trie.insert(&key, deny(outcome::DROP_BAN_NETWORK), 0).map_err(|error| said(maps::DENY4)(&error))?;
        }
        Ok(())
    }

    /// Makes sources known, as if they had come a while ago.
    pub(super) fn track(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<(), String> {
        for address in addresses {
            let key = SourceKey::v4(address.octets());
            let (word, mask) = source_bit(key);
            self.set_bits(maps::BITS, word, mask)?;
            let mut sources: HashMap<&mut MapData, SourceKey, Source> = self.map(maps::SOURCES)?;
            sources.insert(key, Source::default(), 0).map_err(|error| said(maps::SOURCES)(&error))?;
        }
        Ok(())
    }

    /// How many of these sources are known.
    pub(super) fn tracked(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<usize, String> {
        let sources: HashMap<&mut MapData, SourceKey, Source> = self.map(maps::SOURCES)?;
        Ok(addresses.filter(|address| sources.get(&SourceKey::v4(address.octets()), 0).is_ok()).count())
    }
}

fn deny(cause: u32) -> Deny {
    Deny {
        until_ns: u64::MAX,
        since_ns: 0,
        dropped: 0,
        last_dropped_ns: 0,
        cause,
        reason: reason::MANUAL,
        flags: 0,
        reserved: 0,
    }
}

/// `kernel::Settings::default()` on one CPU, without the SYN limit.
fn defaults() -> Config {
    let rate = |per_second: u64, burst: u64| (1_000_000_000 / per_second, (burst - 1) * (1_000_000_000 / per_second));
    let (unknown_syn_interval_ns, unknown_syn_burst_ns) = rate(5000, 5000);
    let (new_source_interval_ns, new_source_burst_ns) = rate(125, 4096);
    let (returning_interval_ns, returning_burst_ns) = rate(500, 2048);
    let (event_interval_ns, event_burst_ns) = rate(100, 1000);
    Config {
        magic: CONFIG_MAGIC,
        flags: 0,
        generation: 1,
        seed: 0x1234_5678_9abc_def1,
        syn_interval_ns: 1,
        syn_burst_ns: 1_000_000_000,
        unknown_syn_interval_ns,
        unknown_syn_burst_ns,
        new_source_interval_ns,
        new_source_burst_ns,
        returning_interval_ns,
        returning_burst_ns,
        event_interval_ns,
        event_burst_ns,
        returning_packets: 3,
        reserved: 0,
    }
}

/// An untagged frame from wherever, to the listener; its destination is a loopback's hardware address.
pub(super) fn frame(flags: u8) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 0];
    // The checksum is right, and the driver keeps it so: the network stack would look no further.
    frame.extend([0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 6, 0x6e, 0xc7, 10, 0, 0, 1, 192, 0, 2, 1]);
    frame.extend([0x9c, 0x40]);
    frame.extend(SMTP.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 255, 255, 0, 0, 0, 0]);
    frame.resize(64, 0);
    frame
}
