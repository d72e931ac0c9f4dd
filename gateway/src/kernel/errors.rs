//! From what aya and the kernel say to what an administrator can act on.

use std::error::Error;
use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{EbpfError, sys::SyscallError};
use rustix::io::Errno;

use super::{KernelError, Pins};

/// An error with its causes, as one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Many errors repeat their cause in their own words.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

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

pub(super) fn detach_error(interface: &str, errno: Errno) -> KernelError {
    match errno {
        Errno::BUSY => KernelError::Held(interface.to_owned()),
        Errno::PERM => KernelError::NoPrivilege("detach somebody else's XDP program"),
        errno => KernelError::Other {
            what: format!("detach somebody else's XDP program from `{interface}`"),
            why: io::Error::from(errno).to_string(),
        },
    }
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
