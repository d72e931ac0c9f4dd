//! The program's end of a tunnel: what is written into it arrives on a card whose packets have no Ethernet header.

#![expect(unsafe_code, reason = "no library that is here knows this one ioctl")]

use std::fs::{File, OpenOptions};

use rustix::ioctl::{Setter, ioctl};

/// `_IOW('T', 202, int)`
const TUNSETIFF: u32 = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: packets as they are.
const FLAGS: u16 = 0x1001;

/// `struct ifreq`, as far as it is looked at.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens a card that `ip tuntap add dev NAME mode tun` made, in this thread's network namespace.
pub fn open(name: &str) -> File {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let mut request = Request { name: [0; 16], flags: FLAGS, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a struct ifreq, which this is in size and layout, and keeps no pointer to it.
    unsafe { ioctl(&tun, Setter::<TUNSETIFF, Request>::new(request)) }.expect("TUNSETIFF");
    tun
}
