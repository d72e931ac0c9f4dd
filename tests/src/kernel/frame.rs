//! Ethernet frames, field by field, so that any of them can be wrong.

use std::net::IpAddr;

/// TCP's flags.
pub const FIN: u8 = 1;
/// A connection attempt, without [`ACK`].
pub const SYN: u8 = 2;
/// Ends a connection.
pub const RST: u8 = 4;
/// What every later segment has.
pub const ACK: u8 = 16;

/// The port that the rig's listener has.
pub const SMTP: u16 = 25;

/// An extension header of IPv6 or an option area of IPv4 that a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its protocol number.
    pub kind: u8,
    /// Its bytes after the "next header" byte.
    pub rest: Vec<u8>,
}

/// A TCP segment in its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The sender.
    pub source: IpAddr,
    /// The port it is for.
    pub port: u16,
    /// TCP's flags.
    pub flags: u8,
    /// VLAN tags, outermost first, each with its own Ethernet type.
    pub tags: Vec<u16>,
    /// IPv4: option bytes, a multiple of 4.
    pub options: Vec<u8>,
    /// IPv4: the flags and fragment offset field.
    pub fragment: u16,
    /// IPv6: extension headers.
    pub extensions: Vec<Extension>,
    /// The protocol at the end.
    pub protocol: u8,
    /// TCP's header length in 32-bit words.
    pub data_offset: u8,
    /// Bytes after the TCP header.
    pub payload: usize,
    /// The length that the IP header claims, if it is not the truth.
    pub claimed_length: Option<u16>,
    /// The first byte of the IP header, if it is not the truth.
    pub version_byte: Option<u8>,
}

impl Frame {
    /// A connection attempt to the listener.
    pub fn syn(source: &str) -> Self {
        Self::of(source.parse().expect("an address"), SYN)
    }

    /// A later segment to the listener.
    pub fn ack(source: &str) -> Self {
        Self { flags: ACK, ..Self::syn(source) }
    }

    /// A segment with these flags to the listener.
    pub fn of(source: IpAddr, flags: u8) -> Self {
        Self {
            source,
            port: SMTP,
            flags,
            tags: Vec::new(),
            options: Vec::new(),
            fragment: 0x4000,
            extensions: Vec::new(),
            protocol: 6,
            data_offset: 5,
            payload: 0,
            claimed_length: None,
            version_byte: None,
        }
    }

    /// As bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        match self.source {
            IpAddr::V4(source) => self.ipv4(&mut frame, source.octets()),
            IpAddr::V6(source) => self.ipv6(&mut frame, source.octets()),
        }
        self.tcp(&mut frame);
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>, source: [u8; 4]) {
        let words = 5 + self.options.len() / 4;
        frame.extend(0x0800_u16.to_be_bytes());
        frame.push(self.version_byte.unwrap_or(0x40 | u8::try_from(words).expect("at most 40 bytes of options")));
        frame.push(0);
        frame.extend(self.claimed_length.unwrap_or(length(words * 4 + 20 + self.payload)).to_be_bytes());
        frame.extend([0, 1]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([64, self.protocol, 0, 0]);
        frame.extend(source);
        frame.extend([192, 0, 2, 1]);
        frame.extend(&self.options);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, source: [u8; 16]) {
        let extensions: usize = self.extensions.iter().map(|extension| 1 + extension.rest.len()).sum();
        frame.extend(0x86dd_u16.to_be_bytes());
        frame.extend([self.version_byte.unwrap_or(0x60), 0, 0, 0]);
        frame.extend(self.claimed_length.unwrap_or(length(extensions + 20 + self.payload)).to_be_bytes());
        let kinds = self.extensions.iter().map(|extension| extension.kind).chain([self.protocol]);
        let mut kinds = kinds.collect::<Vec<_>>().into_iter();
        frame.extend(kinds.next());
        frame.push(64);
        frame.extend(source);
        frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for extension in &self.extensions {
            frame.extend(kinds.next());
            frame.extend(&extension.rest);
        }
    }

    fn tcp(&self, frame: &mut Vec<u8>) {
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend([0; 8]);
        frame.extend([self.data_offset << 4, self.flags, 255, 255, 0, 0, 0, 0]);
        frame.extend(std::iter::repeat_n(b'x', self.payload));
    }
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("an IP packet")
}
