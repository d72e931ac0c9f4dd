//! Debian's xdp-filter as `xdp-filter load --policy allow --features ipv4,ipv6` would have it: what is listed is dropped, the
//! rest passes.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use aya::maps::{MapData, PerCpuHashMap, PerCpuValues};
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader};

use crate::command::{output, target};
use crate::peers;

use super::objects::said;

const OBJECT: &str = "usr/lib/x86_64-linux-gnu/bpf/xdpfilt_alw_ip.o";
const PROGRAM: &str = "xdpfilt_alw_ip";
/// Its map of IPv4 addresses, and the flag that denies a source.
const ADDRESSES: &str = "filter_ipv4";
const DENY_SOURCE: u64 = 1;
/// As many as the gateway has; by default there is room for 10,000.
const ENTRIES: u32 = gateway_common::maps::BANS_MAX;

pub(super) struct Filter {
    ebpf: Ebpf,
}

impl Filter {
    pub(super) fn load() -> Result<Self, String> {
        let path = peers::folder("xdp-tools").join(OBJECT);
        let object = fs::read(&path).map_err(|error| said(OBJECT)(&error))?;
        // Its maps insist on being pinned; a file system of their own is gone when it is unmounted, and they are not.
        let pins = target().join("bench/pins");
        fs::create_dir_all(&pins).map_err(|error| said("bench/pins")(&error))?;
        output(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&pins))?;
        let mut loader = EbpfLoader::new();
        let loaded = loader.default_map_pin_directory(&pins).map_max_entries(ADDRESSES, ENTRIES).load(&object);
        let unmounted = output(Command::new("umount").arg("--lazy").arg(&pins));
        let mut filter = Self { ebpf: loaded.map_err(|error| said(OBJECT)(&error))? };
        unmounted?;
        filter.program()?.load().map_err(|error| said(OBJECT)(&error))?;
        Ok(filter)
    }

    fn program(&mut self) -> Result<&mut Xdp, String> {
        let program = self.ebpf.program_mut(PROGRAM).ok_or_else(|| format!("no program {PROGRAM}"))?;
        program.try_into().map_err(|error| said(PROGRAM)(&error))
    }

    pub(super) fn fd(&mut self) -> Result<ProgramFd, String> {
        let fd = self.program()?.fd().map_err(|error| said(PROGRAM)(&error))?;
        fd.try_clone().map_err(|error| said(PROGRAM)(&error))
    }

    pub(super) fn ban(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<(), String> {
        let map = self.ebpf.map_mut(ADDRESSES).ok_or_else(|| format!("no map {ADDRESSES}"))?;
        let mut map: PerCpuHashMap<&mut MapData, u32, u64> = map.try_into().map_err(|error| said(ADDRESSES)(&error))?;
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| format!("{path}: {error}"))?;
        for address in addresses {
            let values = PerCpuValues::try_from(vec![DENY_SOURCE; cpus]).map_err(|error| said(ADDRESSES)(&error))?;
            let key = u32::from(address).to_be();
            map.insert(key, values, 0).map_err(|error| said(ADDRESSES)(&error))?;
        }
        Ok(())
    }
}
