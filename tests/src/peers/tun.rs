//! The program's end of a card: what is written into it arrives there, and what the card sends is read from it.

#![expect(unsafe_code, reason = "no library that is here knows this one ioctl")]

use std::fs::{File, OpenOptions};

use rustix::ioctl::{Setter, ioctl};

/// `_IOW('T', 202, int)`
const TUNSETIFF: u32 = 0x4004_54ca;
/// Packets as they are: `IFF_NO_PI`, with IP headers first (`IFF_TUN`) or Ethernet headers (`IFF_TAP`).
const TUN: u16 = 0x1001;
const TAP: u16 = 0x1002;

/// `struct ifreq`, as far as it is looked at.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens a card that `ip tuntap add dev NAME mode tun` made, in this thread's network namespace.
pub fn open(name: &str) -> File {
    open_as(name, TUN)
}

/// The same of one that `ip tuntap add dev NAME mode tap` made: its packets have Ethernet headers.
pub fn open_tap(name: &str) -> File {
    open_as(name, TAP)
}

fn open_as(name: &str, flags: u16) -> File {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a struct ifreq, which this is in size and layout, and keeps no pointer to it.
    unsafe { ioctl(&tun, Setter::<TUNSETIFF, Request>::new(request)) }.expect("TUNSETIFF");
    tun
}
