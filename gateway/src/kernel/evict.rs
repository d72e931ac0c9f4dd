//! Takes somebody else's program off a card, which only `xdp.force` asks for.
//!
//! Programs that `ip link` and the like attached belong to nobody, and one netlink message removes them. A program that is
//! held by a BPF link belongs to whoever holds the link, and the kernel lets nobody else remove it; that is then said.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::Mode;

/// Netlink protocol 0, which is what none means.
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;
const RTM_SETLINK: u16 = 19;
const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
const IFLA_XDP_NESTED: u16 = 43 | 0x8000;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const NO_PROGRAM: i32 = -1;
const SKB_MODE: u32 = 2;
const DRIVER_MODE: u32 = 4;
/// Where the answer's error number is: after its own header.
const ERROR: usize = 16;

/// Removes whatever program is on the card in this mode. None is no error.
pub(super) fn evict(index: u32, mode: Mode) -> io::Result<()> {
    let flags = if mode == Mode::Native { DRIVER_MODE } else { SKB_MODE };
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)?;
    sendto(&socket, &message(index, flags), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let error = answer.get(..length).and_then(|answer| answer.get(ERROR..)).and_then(|rest| rest.first_chunk());
    match error.map(|error| i32::from_ne_bytes(*error)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `struct nlmsghdr`, `struct ifinfomsg`, and the nested attribute, as rtnetlink(7) has them.
fn message(index: u32, flags: u32) -> Vec<u8> {
    let mut attributes = Vec::new();
    attributes.extend(attribute(IFLA_XDP_FD, NO_PROGRAM.to_ne_bytes()));
    attributes.extend(attribute(IFLA_XDP_FLAGS, flags.to_ne_bytes()));
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    body.extend(length(attributes.len() + 4).to_ne_bytes());
    body.extend(IFLA_XDP_NESTED.to_ne_bytes());
    body.extend(attributes);
    let mut message = Vec::new();
    message.extend(u32::from(length(body.len() + 16)).to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(kind: u16, value: [u8; 4]) -> [u8; 8] {
    let ([a, b], [c, d], [e, f, g, h]) = (8_u16.to_ne_bytes(), kind.to_ne_bytes(), value);
    [a, b, c, d, e, f, g, h]
}

/// Messages here have a few dozen bytes.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
