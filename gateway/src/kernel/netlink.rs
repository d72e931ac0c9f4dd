//! What the kernel says of its network cards, by rtnetlink: which there are, what is attached to each, and that it changes.
//!
//! Must not know: which cards are wanted. aya has no call for any of it, and `ip` need not be installed where a gateway runs.
//! Asking needs no privilege. Of the hundreds of attributes that a card has seven count here, so they are read by hand: a
//! reader of all of them would fail on the first that it does not know.
//!
//! Messages are a header of 16 octets, a structure, then attributes, each with its length and kind before it, all in the
//! machine's byte order (`linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`).

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// The answer repeats no more of the request than its header.
const NLM_F_CAPPED: u16 = 0x100;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
/// An attribute's kind without its flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `RTMGRP_LINK`: news of cards.
const LINK_GROUP: u32 = 1;
/// Of a message's header.
const HEADER: usize = 16;
/// Of the structure that a message about a card begins with.
const INTERFACE: usize = 16;
/// A part of a dump is no larger.
const PART: usize = 64 << 10;
/// A dump that does not end in so many parts is none.
const PARTS_MAX: usize = 4096;

/// A network card as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// `ARPHRD_…`: what its packets begin with.
    pub(super) hardware: u16,
    pub(super) mtu: u32,
    /// The bridge or bond it is a port of.
    pub(super) master: Option<u32>,
    /// The card that it is on top of, as a VLAN is; of a pair of cards, the other one. Not if that is in another namespace,
    /// where numbers are others.
    pub(super) lower: Option<u32>,
    /// Number of the program in its driver.
    pub(super) native: Option<u32>,
    /// Number of the program behind its driver.
    pub(super) generic: Option<u32>,
}

/// Every card of this thread's network namespace.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let socket = open(0)?;
    socket.send(&request(RTM_GETLINK, NLM_F_DUMP, 0, &[]), 0)?;
    let mut links = Vec::new();
    for _ in 0..PARTS_MAX {
        for (kind, flags, body) in messages(&received(&socket)?) {
            match kind {
                RTM_NEWLINK => links.extend(link(body)),
                NLMSG_DONE => return Ok(links),
                NLMSG_ERROR => return answer(flags, body).map(|()| links),
                _ => {}
            }
        }
    }
    Err(Errno::PROTO.into())
}

/// News of cards, whichever they are.
pub(super) struct News(Socket);

impl News {
    pub(super) fn subscribe() -> io::Result<Self> {
        let socket = open(LINK_GROUP)?;
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Whether there were any within this time. What they are is not read: whoever then asks the kernel for all it has cannot
    /// have missed any.
    pub(super) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))? == 0 {
            return Ok(false);
        }
        loop {
            match received(&self.0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                // More came than there was room for: that is news, too.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Takes off a card what netlink attached, in both modes. None there is no error.
///
/// # Errors
/// A program that a BPF link holds belongs to the link's holders: EBUSY.
pub(super) fn detach(index: u32) -> io::Result<()> {
    let socket = open(0)?;
    // Without a mode, only the better one is looked at.
    for mode in [XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE] {
        set_program(&socket, index, -1, mode)?;
    }
    Ok(())
}

/// Why a driver does not take a program, in its own words, if it has any: attaching by a BPF link, the kernel gives no more than
/// a number. The program is not on the card afterwards, whatever the driver says.
pub(super) fn why_refused(index: u32, program: i32) -> io::Result<()> {
    let socket = open(0)?;
    set_program(&socket, index, program, XDP_FLAGS_DRV_MODE | XDP_FLAGS_UPDATE_IF_NOEXIST)?;
    set_program(&socket, index, -1, XDP_FLAGS_DRV_MODE)
}

fn set_program(socket: &Socket, index: u32, program: i32, flags: u32) -> io::Result<()> {
    let mut xdp = attribute(IFLA_XDP_FD, program.to_ne_bytes());
    xdp.extend(attribute(IFLA_XDP_FLAGS, flags.to_ne_bytes()));
    let head = [&(4 + LENGTH_OF_XDP).to_ne_bytes()[..], &(IFLA_XDP | NLA_F_NESTED).to_ne_bytes(), &xdp].concat();
    socket.send(&request(RTM_SETLINK, NLM_F_ACK, index, &head), 0)?;
    match messages(&received(socket)?).next() {
        Some((NLMSG_ERROR, flags, body)) => answer(flags, body),
        _ => Err(Errno::PROTO.into()),
    }
}

/// Two attributes of eight octets.
const LENGTH_OF_XDP: u16 = 16;

fn open(groups: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    socket.set_ext_ack(true)?;
    Ok(socket)
}

fn received(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(PART);
    socket.recv(&mut part, 0)?;
    Ok(part)
}

/// A message about one card, or about all.
fn request(kind: u16, flags: u16, index: u32, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + INTERFACE + attributes.len()).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    // Sequence number and sender are for those who ask more than one thing at a time; of the structure, family, type, flags
    // and their mask are not to be changed.
    for word in [0, 0, 0, index, 0, 0_u32] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(attributes);
    message
}

/// One attribute with a word in it.
fn attribute(kind: u16, value: [u8; 4]) -> Vec<u8> {
    [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value].concat()
}

/// The kind, flags and body of each message.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        let (kind, flags) = (half(bytes, 4)?, half(bytes, 6)?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, flags, body))
    })
}

/// The kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_ne_bytes(*half))
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link { hardware: half(body, 2)?, index: word(body, 4)?, ..Link::default() };
    let mut is_lower_elsewhere = false;
    for (kind, value) in attributes(body.get(INTERFACE..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = word(value, 0)?,
            IFLA_MASTER => link.master = word(value, 0),
            IFLA_LINK => link.lower = word(value, 0).filter(|index| *index != 0),
            IFLA_LINK_NETNSID => is_lower_elsewhere = true,
            IFLA_XDP => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_XDP_DRV_PROG_ID => link.native = word(value, 0),
                        IFLA_XDP_SKB_PROG_ID => link.generic = word(value, 0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if is_lower_elsewhere {
        link.lower = None;
    }
    Some(link)
}

/// What the kernel answered: nothing, or an error with its own words if it gave any.
fn answer(flags: u16, body: &[u8]) -> io::Result<()> {
    let number = word(body, 0).ok_or(Errno::PROTO)?.cast_signed();
    if number == 0 {
        return Ok(());
    }
    let error = io::Error::from_raw_os_error(number.saturating_neg());
    // After the number comes the request, of which a capped answer has the header only.
    let repeated =
        if flags & NLM_F_CAPPED == 0 { usize::try_from(word(body, 4).unwrap_or_default()).ok() } else { None };
    let more = body.get(4 + repeated.unwrap_or(HEADER).next_multiple_of(4)..).unwrap_or_default();
    match attributes(more).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG) {
        Some((_, words)) => Err(io::Error::new(error.kind(), Said { words: text(words), error })),
        None => Err(error),
    }
}

/// An error, and what the kernel or a driver says of it.
#[derive(Debug, thiserror::Error)]
#[error("{words}")]
struct Said {
    words: String,
    #[source]
    error: io::Error,
}

/// Text ends with a zero.
fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_among_the_cards() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.hardware, lo.master, lo.lower), (772, None, None));
        assert!(lo.index > 0 && lo.mtu > 1000, "{lo:?}");
    }

    #[test]
    fn a_card_is_read_attribute_by_attribute() {
        let nested = [
            attribute(IFLA_XDP_SKB_PROG_ID, 7_u32.to_ne_bytes()),
            attribute(IFLA_XDP_DRV_PROG_ID, 8_u32.to_ne_bytes()),
        ];
        let nested = nested.concat();
        let mut body = request(RTM_NEWLINK, 0, 3, &[]).split_off(HEADER);
        body[2..4].copy_from_slice(&1_u16.to_ne_bytes());
        body.extend([&9_u16.to_ne_bytes()[..], &IFLA_IFNAME.to_ne_bytes(), b"eth0\0", &[0; 3]].concat());
        for (kind, value) in [(IFLA_MTU, 1500_u32), (IFLA_MASTER, 4), (IFLA_LINK, 0), (999, 1)] {
            body.extend(attribute(kind, value.to_ne_bytes()));
        }
        body.extend([&20_u16.to_ne_bytes()[..], &(IFLA_XDP | NLA_F_NESTED).to_ne_bytes(), &nested].concat());
        let whole = link(&body).unwrap();
        let expect = Link {
            name: "eth0".to_owned(),
            index: 3,
            hardware: 1,
            mtu: 1500,
            master: Some(4),
            lower: None,
            native: Some(8),
            generic: Some(7),
        };
        assert_eq!(whole, expect);
        // Cut anywhere, it is less, and no panic.
        for length in 0..body.len() {
            assert_ne!(link(&body[..length]), Some(expect.clone()), "{length}");
        }
    }

    #[test]
    fn an_error_has_the_kernels_words() {
        let nowhere = detach(u32::MAX >> 1).unwrap_err();
        assert!(
            matches!(nowhere.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
                || nowhere.raw_os_error() == Some(19),
            "{nowhere:?}"
        );
        let mut body = (-22_i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        body.extend([&10_u16.to_ne_bytes()[..], &NLMSGERR_ATTR_MSG.to_ne_bytes(), b"words\0"].concat());
        assert_eq!(answer(NLM_F_CAPPED, &body).unwrap_err().to_string(), "words");
        assert_eq!(answer(NLM_F_CAPPED, &body[..4]).unwrap_err().raw_os_error(), Some(22));
        assert!(answer(0, &0_i32.to_ne_bytes()).is_ok());
    }
}
