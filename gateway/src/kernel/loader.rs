//! The program into the kernel, its maps found again, and the program onto a card.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError};
use aya::programs::Xdp;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::{Ebpf, EbpfLoader};
use gateway_common::{CONFIG_MAGIC, Config, MAPS, maps};

use super::errors::{attach_error, chain, detach_error, load_error, map_error, pins_error, program_error};
use super::foreign;
use super::object::{OBJECT, PROGRAM};
use super::{Attached, KernelError, Mode, Pins, Settings, Wanted};

/// The program in the kernel. Dropped, it goes on filtering if it was loaded with pins, and leaves the cards if not.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
    maps: HashMap<&'static str, MapData>,
    pins: Option<Pins>,
    /// Links without pins: the program is on the card as long as they are held.
    held: Vec<FdLink>,
}

/// What an earlier run left of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// One in another mode, or of a card that went away.
    Removed,
    TakenOver(Mode),
}

/// The kernel lets a link go a while after its pin is removed; until then the card is busy.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
const RELEASE_INTERVAL: Duration = Duration::from_millis(5);

impl Program {
    /// Loads the embedded program. With pins, maps that an earlier run left there are taken over as they are.
    pub fn load(pins: Option<&Pins>) -> Result<Self, KernelError> {
        let folder = pins.map(|pins| prepared(pins).map(|()| pins.maps())).transpose()?;
        let mut loader = EbpfLoader::new();
        if let Some(folder) = &folder {
            for map in MAPS {
                loader.map_pin_path(map.name, folder.join(map.name));
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| load_error(&error))?;
        program(&mut ebpf)?.load().map_err(|error| program_error("load the program", &error))?;
        let maps = MAPS.iter().map(|map| Ok((map.name, taken(&mut ebpf, map.name)?))).collect::<Result<_, _>>()?;
        Ok(Self { ebpf, maps, pins: pins.cloned(), held: Vec::new() })
    }

    /// Another handle of a map, by its name in [`gateway_common::maps`], for whoever reads it or, for the lists, writes it.
    pub fn map(&self, name: &str) -> Result<MapData, MapError> {
        duplicate(&self.maps, name)
    }

    /// Tells the program its limits. Until then it passes everything.
    pub fn configure(&mut self, settings: &Settings) -> Result<(), KernelError> {
        let mut map: Array<MapData, Config> = array(&self.maps, maps::CONFIG)?;
        let known = map.get(&0, 0).map_err(|error| map_error(maps::CONFIG, &error))?;
        let (generation, seed) =
            if known.magic == CONFIG_MAGIC { (known.generation + 1, known.seed) } else { (1, seed()?) };
        let config = settings.config(generation, seed, possible_cpus()?);
        map.set(0, config, 0).map_err(|error| map_error(maps::CONFIG, &error))
    }

    /// Tells the program which ports are the listeners'; others are not looked at.
    pub fn set_ports(&mut self, ports: &[u16]) -> Result<(), KernelError> {
        let mut words: Array<MapData, u64> = array(&self.maps, maps::PORTS)?;
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
    pub fn set_interface(&mut self, index: u32, flags: u32) -> Result<(), KernelError> {
        let interfaces =
            self.map(maps::INTERFACES).and_then(Map::from_map_data).and_then(BpfHashMap::<_, u32, u32>::try_from);
        let mut interfaces = interfaces.map_err(|error| map_error(maps::INTERFACES, &error))?;
        interfaces.insert(index, flags, 0).map_err(|error| map_error(maps::INTERFACES, &error))
    }

    /// Puts the program on a card. An earlier run's is replaced in one step; anybody else's stays, and is an error, unless
    /// it is to go by `force`.
    pub fn attach(&mut self, interface: &str, wanted: Wanted, force: bool) -> Result<Attached, KernelError> {
        match self.attach_beside_nobody(interface, wanted) {
            Err(KernelError::Busy(_)) if force => {}
            other => return other,
        }
        foreign::detach(index_of(interface)?).map_err(|errno| detach_error(interface, errno))?;
        let attached = self.attach_beside_nobody(interface, wanted)?;
        Ok(Attached { replaced: true, ..attached })
    }

    fn attach_beside_nobody(&mut self, interface: &str, wanted: Wanted) -> Result<Attached, KernelError> {
        let index = index_of(interface)?;
        let attached = |mode, taken_over, why_not_native| Attached {
            interface: interface.to_owned(),
            index,
            mode,
            taken_over,
            replaced: false,
            why_not_native,
        };
        let left = self.take_over(interface, wanted)?;
        if let Left::TakenOver(mode) = left {
            return Ok(attached(mode, true, None));
        }
        let patience = if left == Left::Removed { RELEASE_TIMEOUT } else { Duration::ZERO };
        let mut refusals = Vec::new();
        for &mode in wanted.modes() {
            match self.attach_patiently(interface, index, mode, patience) {
                Ok(()) => return Ok(attached(mode, false, refusals.pop())),
                Err(KernelError::Refused { why, .. }) => refusals.push(format!("{}: {why}", mode.name())),
                Err(error) => return Err(error),
            }
        }
        Err(KernelError::Refused { interface: interface.to_owned(), why: refusals.join("; ") })
    }

    /// Takes the program off every card, and forgets every ban and counter.
    pub fn detach(self) -> Result<(), KernelError> {
        let Some(pins) = &self.pins else { return Ok(()) };
        remove_pins(pins).map_err(|error| pins_error(pins, &error))
    }

    /// Puts this program behind the link of an earlier run, if there is one in a mode that is wanted, and removes others.
    fn take_over(&mut self, interface: &str, wanted: Wanted) -> Result<Left, KernelError> {
        let mut left = Left::Nothing;
        let Some(pins) = self.pins.clone() else { return Ok(left) };
        for mode in [Mode::Native, Mode::Generic] {
            let path = pins.link(interface, mode);
            if !path.exists() {
                continue;
            }
            // A link whose card went away, or that cannot be read, holds nothing: it makes room for a new one.
            if wanted.modes().contains(&mode) && self.replace_behind(&path).is_ok() {
                return Ok(Left::TakenOver(mode));
            }
            fs::remove_file(&path).map_err(|error| pins_error(&pins, &error))?;
            left = Left::Removed;
        }
        Ok(left)
    }

    fn replace_behind(&mut self, path: &Path) -> Result<(), KernelError> {
        let failed = |error: &dyn std::error::Error| KernelError::Other {
            what: format!("take over {}", path.display()),
            why: chain(error),
        };
        let link = FdLink::from(PinnedLink::from_pin(path).map_err(|error| failed(&error))?);
        let link = XdpLink::try_from(link).map_err(|error| failed(&error))?;
        let program = program(&mut self.ebpf)?;
        program.attach_to_link(link).map(drop).map_err(|error| failed(&error))
    }

    /// Waits for a card that is busy.
    fn attach_patiently(
        &mut self,
        interface: &str,
        index: u32,
        mode: Mode,
        patience: Duration,
    ) -> Result<(), KernelError> {
        let start = Instant::now();
        loop {
            match self.attach_in(interface, index, mode) {
                Err(KernelError::Busy(_)) if start.elapsed() < patience => sleep(RELEASE_INTERVAL),
                attached => return attached,
            }
        }
    }

    fn attach_in(&mut self, interface: &str, index: u32, mode: Mode) -> Result<(), KernelError> {
        let flag = if mode == Mode::Native { XdpMode::Driver } else { XdpMode::Skb };
        let program = program(&mut self.ebpf)?;
        let link = program.attach_to_if_index(index, flag).map_err(|error| attach_error(interface, &error))?;
        let link = program.take_link(link).map_err(|error| attach_error(interface, &error))?;
        // aya falls back to netlink on kernels without links, whose programs cannot be pinned.
        let link = FdLink::try_from(link).map_err(|_| KernelError::Unsupported("no BPF links".to_owned()))?;
        match &self.pins {
            None => self.held.push(link),
            Some(pins) => {
                let pinned = link.pin(pins.link(interface, mode));
                pinned.map_err(|error| KernelError::Pins { folder: pins.folder().to_owned(), why: chain(&error) })?;
            }
        }
        Ok(())
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let program = ebpf.program_mut(PROGRAM).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| KernelError::Other {
        what: "read the embedded program".to_owned(),
        why: format!("it has no XDP program `{PROGRAM}`; this build is broken"),
    })
}

/// A map out of what was loaded.
fn taken(ebpf: &mut Ebpf, name: &str) -> Result<MapData, KernelError> {
    match ebpf.take_map(name) {
        Some(Map::Array(map) | Map::PerCpuArray(map) | Map::HashMap(map) | Map::LpmTrie(map) | Map::RingBuf(map)) => {
            Ok(map)
        }
        _ => Err(KernelError::Other {
            what: "read the embedded program".to_owned(),
            why: format!("it has no map `{name}`, or one of another kind; this build is broken"),
        }),
    }
}

fn duplicate(maps: &HashMap<&'static str, MapData>, name: &str) -> Result<MapData, MapError> {
    let map = maps.get(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?;
    let fd = map.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
    MapData::from_fd(fd)
}

fn array<V: aya::Pod>(maps: &HashMap<&'static str, MapData>, name: &str) -> Result<Array<MapData, V>, KernelError> {
    let map = duplicate(maps, name).and_then(Map::from_map_data).and_then(Array::try_from);
    map.map_err(|error| map_error(name, &error))
}

/// The folder of this version's maps, for the owner only.
fn prepared(pins: &Pins) -> Result<(), KernelError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(pins.maps());
    made.map_err(|error| pins_error(pins, &error))?;
    if is_bpf_file_system(pins.folder()).map_err(|error| pins_error(pins, &error))? {
        return Ok(());
    }
    // What was made in the wrong place goes again; if something else is in there, it stays.
    let _ = fs::remove_dir(pins.maps());
    let _ = fs::remove_dir(pins.folder());
    Err(KernelError::Pins {
        folder: pins.folder().to_owned(),
        why: "it is not on a BPF file system; `mount -t bpf bpf /sys/fs/bpf` makes the usual one".to_owned(),
    })
}

fn is_bpf_file_system(folder: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let kind = rustix::fs::statfs(folder)?.f_type;
    // The type is signed on some machines, and the magic number does not fit there.
    Ok(u64::try_from(kind).unwrap_or_default() & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Links and maps of this version and of others. Nothing but what a gateway made.
fn remove_pins(pins: &Pins) -> io::Result<()> {
    for entry in fs::read_dir(pins.folder())? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("link-") {
            fs::remove_file(entry.path())?;
        } else if name.starts_with('v') {
            fs::remove_dir_all(entry.path())?;
        }
    }
    fs::remove_dir(pins.folder())
}

fn possible_cpus() -> Result<u32, KernelError> {
    let cpus = aya::util::nr_cpus()
        .map_err(|(path, error)| KernelError::Other { what: format!("read {path}"), why: error.to_string() })?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

fn seed() -> Result<u64, KernelError> {
    let mut bytes = [0; 8];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    read.map_err(|error| KernelError::Other { what: "read /dev/urandom".to_owned(), why: error.to_string() })?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The kernel's number for a card, in this thread's network namespace.
fn index_of(interface: &str) -> Result<u32, KernelError> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let index = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| netdevice::name_to_index(socket, interface));
    index.map_err(|_| KernelError::UnknownInterface(interface.to_owned()))
}
