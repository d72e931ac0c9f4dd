//! From what aya and the kernel say to what an administrator can act on.

use std::error::Error;
use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{EbpfError, sys::SyscallError};
use rustix::io::Errno;

use super::netlink::Link;
use super::{KernelError, Pins, chain};

pub(super) fn load_error(error: &EbpfError) -> KernelError {
    system_error(error).unwrap_or_else(|| other("load the program's maps", error))
}

pub(super) fn program_error(what: &str, error: &ProgramError) -> KernelError {
    system_error(error).unwrap_or_else(|| other(what, error))
}

pub(super) fn map_error(name: &str, error: &MapError) -> KernelError {
    system_error(error).unwrap_or_else(|| other(&format!("map {name}"), error))
}

pub(super) fn pins_error(pins: &Pins, error: &io::Error) -> KernelError {
    let why = format!("{error}; it must be writable, and on a BPF file system (`mount -t bpf bpf /sys/fs/bpf`)");
    KernelError::Pins { folder: pins.folder().to_owned(), why }
}

pub(super) fn attach_error(interface: &str, error: &ProgramError) -> KernelError {
    match errno(error) {
        Some(Errno::BUSY | Errno::EXIST) => KernelError::Busy(interface.to_owned()),
        Some(Errno::PERM) => KernelError::NoPrivilege("attach an XDP program"),
        Some(Errno::NODEV) => KernelError::UnknownInterface(interface.to_owned()),
        _ => KernelError::Refused { interface: interface.to_owned(), why: chain(error) },
    }
}

pub(super) fn detach_error(interface: &str, error: &io::Error) -> KernelError {
    match errno(error) {
        Some(Errno::BUSY) => KernelError::Held(interface.to_owned()),
        Some(Errno::PERM) => KernelError::NoPrivilege("detach somebody else's XDP program"),
        _ => KernelError::other(&format!("detach somebody else's XDP program from `{interface}`"), error),
    }
}

/// A driver's page, less the room that it needs before and after a packet: larger ones do not fit, whatever the driver.
const MTU_MAX: u32 = 3498;

/// Why there is no native mode, and what to do about it. Drivers say it each in its own words, or not at all; then the card's
/// own figures tell.
pub(super) fn native_refusal(card: &Link, why: &str) -> String {
    let Link { name, mtu, .. } = card;
    let said = why.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let advice = if says(&["mtu"]) {
        lower_mtu(card)
    } else if says(&["queue", "channel", "no space left"]) {
        format!(
            "the driver needs more queues (`ethtool -L {name} combined N`; of a pair, at least as many as the other end has)"
        )
    } else if says(&["lro", "rsc", "large receive", "gro_hw"]) {
        format!("turn the card's own joining of packets off (`ethtool -K {name} lro off rx-gro-hw off`)")
    } else if says(&["not support"]) {
        "its driver has no native mode".to_owned()
    } else if *mtu > MTU_MAX {
        lower_mtu(card)
    } else {
        "the kernel's log (`dmesg`) may say more".to_owned()
    };
    format!("{why}; {advice}")
}

fn lower_mtu(Link { name, mtu, .. }: &Link) -> String {
    format!(
        "packets must fit into a page: lower the MTU, {mtu} now (`ip link set dev {name} mtu {MTU_MAX}`; of a pair, the other \
         end's)"
    )
}

/// What the system says of BPF as a whole.
fn system_error(error: &(dyn Error + 'static)) -> Option<KernelError> {
    match errno(error)? {
        Errno::PERM => Some(KernelError::NoPrivilege("load a BPF program")),
        Errno::NOSYS => Some(KernelError::Unsupported("this kernel was built without it".to_owned())),
        _ => None,
    }
}

fn other(what: &str, error: &dyn Error) -> KernelError {
    // The verifier's log is pages; its last words are the point.
    let why = chain(error);
    let lines: Vec<&str> = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let why = match lines.as_slice() {
        [first, .., before_last, last] if lines.len() > 4 => format!("{first} … {before_last} … {last}"),
        lines => lines.join(" "),
    };
    KernelError::Other { what: what.to_owned(), why }
}

/// The system's error number, wherever in the chain of causes it is.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let number = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<SyscallError>()) {
            (Some(error), _) => error.raw_os_error(),
            (_, Some(error)) => error.io_error.raw_os_error(),
            _ => None,
        };
        if let Some(number) = number {
            return Some(Errno::from_raw_os_error(number));
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let card = |mtu| Link { name: "eth0".to_owned(), mtu, ..Link::default() };
        for (mtu, said, advice) in [
            (9000, "Invalid argument (os error 22)", "`ip link set dev eth0 mtu 3498`"),
            (1500, "Peer MTU is too large to set XDP", "lower the MTU"),
            (1500, "XDP expects number of rx queues not less than peer tx queues", "`ethtool -L eth0 combined N`"),
            (1500, "No space left on device (os error 28)", "more queues"),
            (1500, "XDP is not supported with LRO", "lro off"),
            (1500, "Operation not supported (os error 95)", "its driver has no native mode"),
            (1500, "Invalid argument (os error 22)", "dmesg"),
        ] {
            let why = native_refusal(&card(mtu), said);
            assert!(why.starts_with(said) && why.contains(advice), "{why}");
        }
    }
}
