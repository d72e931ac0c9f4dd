//! The program into the kernel, and its maps found again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError};
use aya::programs::Xdp;
use aya::programs::links::FdLink;
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use gateway_common::{CONFIG_MAGIC, Config, MAPS, maps};

use super::cards::Framing;
use super::errors::{load_error, map_error, program_error};
use super::object::{OBJECT, PROGRAM, PROGRAM_IP};
use super::pins::PinFolder;
use super::{KernelError, Mode, Pins, Settings};

/// The program in the kernel. Dropped, it goes on filtering if it was loaded with pins, and leaves the cards if not.
#[derive(Debug)]
pub struct Program {
    entries: Entries,
    maps: HashMap<&'static str, MapData>,
    pub(super) pins: Option<PinFolder>,
    /// Links without pins: the program is on the card as long as they are held.
    pub(super) held: Vec<Held>,
}

/// A link without a pin, and where it is.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) index: u32,
    pub(super) mode: Mode,
    pub(super) _link: FdLink,
}

/// The program's two entries, for cards with an Ethernet header and for those without.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Entries {
    Loaded(Ebpf),
    /// An earlier run loaded them; this one may not.
    Adopted {
        ethernet: Xdp,
        ip: Xdp,
    },
}

impl Program {
    /// Loads the embedded program. With pins, maps that an earlier run left there are taken over as they are; where this process
    /// has no privilege to load anything, so is that run's program, if it has the same maps.
    ///
    /// # Errors
    /// No privilege, no BPF, or the pin folder cannot be used.
    pub fn load(pins: Option<&Pins>) -> Result<Self, KernelError> {
        let pins = pins.map(Pins::open).transpose()?;
        match (Self::load_new(pins.as_ref()), pins) {
            (Ok((entries, maps)), pins) => Ok(Self { entries, maps, pins, held: Vec::new() }),
            (Err(error @ KernelError::NoPrivilege(_)), Some(pins)) => {
                let (entries, maps) = adopt(&pins).ok_or(error)?;
                Ok(Self { entries, maps, pins: Some(pins), held: Vec::new() })
            }
            (Err(error), _) => Err(error),
        }
    }

    fn load_new(pins: Option<&PinFolder>) -> Result<(Entries, HashMap<&'static str, MapData>), KernelError> {
        let mut loader = EbpfLoader::new();
        if let Some(pins) = pins {
            for map in MAPS {
                loader.map_pin_path(map.name, pins.of(map.name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| load_error(&error))?;
        for name in [PROGRAM, PROGRAM_IP] {
            let program = entry(&mut ebpf, name)?;
            program.load().map_err(|error| program_error("load the program", &error))?;
            if let Some(pins) = pins {
                pins.remove(&pins.of(name))?;
                let pinned = program.pin(pins.of(name));
                pinned.map_err(|error| KernelError::other("pin the program", &error))?;
            }
        }
        let maps = MAPS.iter().map(|map| Ok((map.name, taken(&mut ebpf, map.name)?))).collect::<Result<_, _>>()?;
        Ok((Entries::Loaded(ebpf), maps))
    }

    /// Whether an earlier run loaded it, because this one may not.
    pub fn is_adopted(&self) -> bool {
        matches!(self.entries, Entries::Adopted { .. })
    }

    pub(super) fn entry(&mut self, framing: Framing) -> Result<&mut Xdp, KernelError> {
        match (&mut self.entries, framing) {
            (Entries::Loaded(ebpf), Framing::Ethernet) => entry(ebpf, PROGRAM),
            (Entries::Loaded(ebpf), Framing::Ip) => entry(ebpf, PROGRAM_IP),
            (Entries::Adopted { ethernet, .. }, Framing::Ethernet) => Ok(ethernet),
            (Entries::Adopted { ip, .. }, Framing::Ip) => Ok(ip),
        }
    }

    /// The kernel's number for an entry.
    pub(super) fn number(&mut self, framing: Framing) -> Result<u32, KernelError> {
        let info = self.entry(framing)?.info().map_err(|error| program_error("ask for the program", &error))?;
        Ok(info.id())
    }

    /// Another handle of a map, by its name in [`gateway_common::maps`], for whoever reads it or, for the lists, writes it.
    ///
    /// # Errors
    /// No such map, or no more descriptors.
    pub fn map(&self, name: &str) -> Result<MapData, MapError> {
        let map = self.maps.get(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?;
        let fd = map.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
        MapData::from_fd(fd)
    }

    /// Tells the program its limits. Until then it passes everything.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn configure(&mut self, settings: &Settings) -> Result<(), KernelError> {
        let mut map: Array<MapData, Config> = self.array(maps::CONFIG)?;
        let known = map.get(&0, 0).map_err(|error| map_error(maps::CONFIG, &error))?;
        let (generation, seed) =
            if known.magic == CONFIG_MAGIC { (known.generation + 1, known.seed) } else { (1, seed()?) };
        let config = settings.config(generation, seed, possible_cpus()?);
        map.set(0, config, 0).map_err(|error| map_error(maps::CONFIG, &error))
    }

    /// Tells the program which ports are the listeners'; others are not looked at.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_ports(&mut self, ports: &[u16]) -> Result<(), KernelError> {
        let mut words: Array<MapData, u64> = self.array(maps::PORTS)?;
        for word in 0..maps::PORTS_WORDS {
            let bits = ports
                .iter()
                .filter(|port| u32::from(**port) / 64 == word)
                .fold(0, |bits, port| bits | 1 << (port % 64));
            let known = words.get(&word, 0).map_err(|error| map_error(maps::PORTS, &error))?;
            if known != bits {
                words.set(word, bits, 0).map_err(|error| map_error(maps::PORTS, &error))?;
            }
        }
        Ok(())
    }

    /// Tells the program what a card is to it: [`INTERFACE_OUTSIDE`](gateway_common::INTERFACE_OUTSIDE), or 0.
    pub(super) fn set_interface(&self, index: u32, flags: u32) -> Result<(), KernelError> {
        let interfaces =
            self.map(maps::INTERFACES).and_then(Map::from_map_data).and_then(BpfHashMap::<_, u32, u32>::try_from);
        let mut interfaces = interfaces.map_err(|error| map_error(maps::INTERFACES, &error))?;
        interfaces.insert(index, flags, 0).map_err(|error| map_error(maps::INTERFACES, &error))
    }

    fn array<V: aya::Pod>(&self, name: &str) -> Result<Array<MapData, V>, KernelError> {
        let map = self.map(name).and_then(Map::from_map_data).and_then(Array::try_from);
        map.map_err(|error| map_error(name, &error))
    }
}

/// What an earlier run of the same layout loaded, if all of it is within reach.
fn adopt(pins: &PinFolder) -> Option<(Entries, HashMap<&'static str, MapData>)> {
    let entry = |name| Xdp::from_pin(pins.of(name), XdpAttachType::Interface).ok();
    let entries = Entries::Adopted { ethernet: entry(PROGRAM)?, ip: entry(PROGRAM_IP)? };
    let map = |name| MapData::from_pin(pins.of(name)).ok().map(|map| (name, map));
    Some((entries, MAPS.iter().map(|known| map(known.name)).collect::<Option<_>>()?))
}

fn entry<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| KernelError::Broken { what: format!("XDP program `{name}`") })
}

/// A map out of what was loaded.
fn taken(ebpf: &mut Ebpf, name: &str) -> Result<MapData, KernelError> {
    match ebpf.take_map(name) {
        Some(Map::Array(map) | Map::PerCpuArray(map) | Map::HashMap(map) | Map::LpmTrie(map) | Map::RingBuf(map)) => {
            Ok(map)
        }
        _ => Err(KernelError::Broken { what: format!("map `{name}` of the kind it should be") }),
    }
}

fn possible_cpus() -> Result<u32, KernelError> {
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| KernelError::other(&format!("read {path}"), &error))?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

fn seed() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    read.map_err(|error| KernelError::other("read /dev/urandom", &error))?;
    Ok(u64::from_ne_bytes(bytes))
}
