//! Takes somebody else's program off a card.
//!
//! Must not know: who wanted it, and what comes onto the card instead. A program that was attached by netlink belongs to
//! nobody, and the next message takes it off, in either mode; one that a BPF link holds belongs to the link's holders, and
//! the kernel says EBUSY. aya has no call for what it did not attach itself, and `ip` need not be installed where a gateway
//! runs; hence the one message, written here.

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// The message whole: header, interface, and the attribute `IFLA_XDP` with two inside it.
const LENGTH: u32 = HEADER + INTERFACE + ATTRIBUTE + XDP;
const HEADER: u32 = 16;
const INTERFACE: u32 = 16;
const ATTRIBUTE: u32 = 4;
const XDP: u32 = 2 * (ATTRIBUTE + 4);
/// Where the kernel's answer has the error number, after its header.
const ERROR_AT: usize = 16;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h: without one, only the better mode is looked at.
const MODES: [u32; 2] = [1 << 1, 1 << 2];

/// Takes off what netlink attached, in both modes. None there is no error.
pub(super) fn detach(index: u32) -> Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    for mode in MODES {
        send(&socket, &message(index, mode), SendFlags::empty())?;
        // The kernel has answered when `send` returns, so this cannot wait.
        let mut answer = [0; 1024];
        let (_, length) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
        let number = answer.get(..length).and_then(|answer| answer.get(ERROR_AT..)?.first_chunk());
        match i32::from_ne_bytes(*number.ok_or(Errno::PROTO)?) {
            0 => {}
            error => return Err(Errno::from_raw_os_error(error.saturating_neg())),
        }
    }
    Ok(())
}

/// `RTM_SETLINK`: no program for this card in this mode.
fn message(index: u32, mode: u32) -> Vec<u8> {
    const RTM_SETLINK: u16 = 19;
    /// `NLM_F_REQUEST` and `NLM_F_ACK`.
    const FLAGS: u16 = 1 | 4;
    /// With `NLA_F_NESTED`.
    const IFLA_XDP: u16 = 43 | 1 << 15;
    const IFLA_XDP_FD: u16 = 1;
    const IFLA_XDP_FLAGS: u16 = 3;
    let mut message = Vec::new();
    let u32s = |message: &mut Vec<u8>, values: &[u32]| {
        values.iter().for_each(|value| message.extend_from_slice(&value.to_ne_bytes()));
    };
    let attribute = |message: &mut Vec<u8>, length: u16, kind: u16| {
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
    };
    // Sequence number and sender are for those who ask more than one thing at a time.
    u32s(&mut message, &[LENGTH]);
    attribute(&mut message, RTM_SETLINK, FLAGS);
    u32s(&mut message, &[0, 0]);
    // Family and type, then flags and their mask, are not to be changed.
    u32s(&mut message, &[0, index, 0, 0]);
    attribute(&mut message, 20, IFLA_XDP);
    attribute(&mut message, 8, IFLA_XDP_FD);
    message.extend_from_slice(&(-1_i32).to_ne_bytes());
    attribute(&mut message, 8, IFLA_XDP_FLAGS);
    u32s(&mut message, &[mode]);
    message
}
