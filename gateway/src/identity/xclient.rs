//! The one XCLIENT command that tells the backend who the client is (Postfix XCLIENT_README).

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::smtp::ehlo::XclientAttributes;
use crate::smtp::xtext;

use super::ClientAddr;

/// The client's host name, as far as DNS vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// A name whose addresses include the client's.
    Verified(Box<str>),
    /// The reverse zone gives a name, and nothing else confirms it.
    Unconfirmed {
        /// The name that it gives.
        reverse: Box<str>,
        /// Whether to confirm it failed for now.
        temporary: bool,
    },
    /// There is none.
    Unavailable,
    /// The look-up failed.
    TemporarilyUnavailable,
}

const UNAVAILABLE: &[u8] = b"[UNAVAILABLE]";
const TEMPORARILY_UNAVAILABLE: &[u8] = b"[TEMPUNAVAIL]";

impl ClientName {
    /// A forward-confirmed name; [`ClientName::Unavailable`] if it [is none](is_host_name).
    pub fn verified(name: &str) -> Self {
        if is_host_name(name) { Self::Verified(name.into()) } else { Self::Unavailable }
    }

    /// The confirmed name.
    fn name(&self) -> &[u8] {
        match self {
            Self::Verified(name) => name.as_bytes(),
            Self::Unconfirmed { temporary: false, .. } | Self::Unavailable => UNAVAILABLE,
            Self::Unconfirmed { temporary: true, .. } | Self::TemporarilyUnavailable => TEMPORARILY_UNAVAILABLE,
        }
    }

    /// What the reverse zone says.
    fn reverse(&self) -> &[u8] {
        match self {
            Self::Verified(name) | Self::Unconfirmed { reverse: name, .. } => name.as_bytes(),
            Self::Unavailable => UNAVAILABLE,
            Self::TemporarilyUnavailable => TEMPORARILY_UNAVAILABLE,
        }
    }
}

/// Whether this can be told as a host name. Whoever controls the reverse zone chooses its bytes (CVE-2026-28753), so what is
/// not made of letters, digits, hyphens, dots and the underscores that Postfix takes too is none; nor is what could be
/// read as an address.
pub fn is_host_name(name: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && name.split('.').all(label)
        && name.rsplit('.').next().is_some_and(|top| !number(top))
}

/// What can be told of a client.
#[derive(Debug)]
pub struct XclientFacts<'a> {
    /// Who it is.
    pub client: ClientAddr,
    /// What reverse DNS says that it is called.
    pub name: &'a ClientName,
    /// How it named itself.
    pub helo: &'a str,
    /// Whether it said EHLO.
    pub esmtp: bool,
    /// Who the backend has let log in, in another session of the same client.
    pub login: Option<&'a str>,
    /// The gateway's address that it connected to.
    pub destination: SocketAddr,
    /// How the backend wants IPv6 addresses written.
    pub ipv6_form: Ipv6Form,
}

/// How an IPv6 address is written. Servers take one and refuse the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ipv6Form {
    /// `IPV6:2001:db8::1`, as Postfix has it.
    #[default]
    Prefixed,
    /// `2001:db8::1`.
    Bare,
}

/// The backend does not take ADDR, without which there is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the backend does not offer XCLIENT ADDR")]
pub struct AddrNotOffered;

/// Longest command in bytes, CRLF included.
const COMMAND_MAX: usize = 512;
/// Longest encoded value in bytes.
const VALUE_MAX: usize = 255;

/// Appends the command with everything that is offered, CRLF included. What is not known is said to be so: what is not said
/// keeps the value that the gateway itself had, and Postfix forgets what the last XCLIENT did not say.
///
/// # Errors
/// [`AddrNotOffered`]; then nothing was appended.
pub fn encode_xclient(
    facts: &XclientFacts<'_>,
    offered: XclientAttributes,
    out: &mut Vec<u8>,
) -> Result<(), AddrNotOffered> {
    if !offered.contains(XclientAttributes::ADDR) {
        return Err(AddrNotOffered);
    }
    let start = out.len();
    out.extend_from_slice(b"XCLIENT");
    let mut add = |attribute, name: &str, value: &[u8]| {
        if offered.contains(attribute) {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value);
        }
    };
    let (unnamed, destination) = (ClientName::Unavailable, facts.destination);
    let (name, client) = match facts.client.told() {
        Some(client) => (facts.name, Some(client)),
        // Nor is the load balancer's name the client's.
        None => (&unnamed, None),
    };
    let ip = client.map(|client| address(client.ip(), facts.ipv6_form));
    let mut digits = itoa::Buffer::new();
    add(XclientAttributes::ADDR, "ADDR", ip.as_deref().unwrap_or(UNAVAILABLE));
    add(XclientAttributes::PORT, "PORT", port(client, &mut digits));
    add(XclientAttributes::PROTO, "PROTO", if facts.esmtp { b"ESMTP" } else { b"SMTP" });
    if offered.contains(XclientAttributes::DESTADDR) {
        add(XclientAttributes::DESTADDR, "DESTADDR", &address(destination.ip().to_canonical(), facts.ipv6_form));
    }
    add(XclientAttributes::DESTPORT, "DESTPORT", port(Some(destination), &mut digits));
    // Whoever has not logged in is cleared of the gateway's own login.
    if facts.login.is_none() {
        add(XclientAttributes::LOGIN, "LOGIN", UNAVAILABLE);
    }
    add(XclientAttributes::NAME, "NAME", name.name());
    // The longest values come last: what does not fit can be done without.
    let mut add_if_it_fits = |attribute, name: &str, value: &[u8], behind: usize| {
        if offered.contains(attribute) {
            let length = out.len() - start + " =".len() + name.len() + value.len() + behind;
            let fits = value.len() <= VALUE_MAX && length <= COMMAND_MAX;
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(if fits { value } else { UNAVAILABLE });
        }
    };
    let helo = if offered.contains(XclientAttributes::HELO) { " HELO=[UNAVAILABLE]\r\n".len() } else { 2 };
    if let Some(login) = facts.login {
        let reverse = offered.contains(XclientAttributes::REVERSE_NAME);
        let behind = helo + if reverse { " REVERSE_NAME=[UNAVAILABLE]".len() } else { 0 };
        add_if_it_fits(XclientAttributes::LOGIN, "LOGIN", &encoded(login), behind);
    }
    add_if_it_fits(XclientAttributes::REVERSE_NAME, "REVERSE_NAME", name.reverse(), helo);
    add_if_it_fits(XclientAttributes::HELO, "HELO", &encoded(facts.helo), 2);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn address(ip: IpAddr, form: Ipv6Form) -> Vec<u8> {
    match (ip, form) {
        // The formatter takes ten times as long, and every session tells of two.
        (IpAddr::V4(ip), _) => {
            let (mut text, mut digits) = (Vec::with_capacity("255.255.255.255.".len()), itoa::Buffer::new());
            for octet in ip.octets() {
                text.extend_from_slice(digits.format(octet).as_bytes());
                text.push(b'.');
            }
            text.pop();
            text
        }
        (IpAddr::V6(ip), Ipv6Form::Prefixed) => format!("IPV6:{ip}").into(),
        (IpAddr::V6(ip), Ipv6Form::Bare) => ip.to_string().into(),
    }
}

/// Load balancers that know no port write 0, which servers refuse as none.
fn port(address: Option<SocketAddr>, digits: &mut itoa::Buffer) -> &[u8] {
    match address.map_or(0, |address| address.port()) {
        0 => UNAVAILABLE,
        port => digits.format(port).as_bytes(),
    }
}

fn encoded(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    xtext::encode_into(value.as_bytes(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::ehlo::Offer;
    use crate::smtp::reply::{ReplyParse, parse_reply};

    fn command(client: &str, name: &ClientName, helo: &str, offered: &str) -> Option<String> {
        let reply = format!("250-x\r\n250 XCLIENT {offered}\r\n");
        let ReplyParse::Complete { reply, .. } = parse_reply(reply.as_bytes()) else { panic!("no reply") };
        let facts = XclientFacts {
            client: ClientAddr::from_proxy_header(client.parse().unwrap()),
            name,
            helo,
            esmtp: true,
            login: None,
            destination: "192.0.2.1:25".parse().unwrap(),
            ipv6_form: if offered.starts_with("addr") { Ipv6Form::Bare } else { Ipv6Form::Prefixed },
        };
        let mut out = Vec::new();
        encode_xclient(&facts, Offer::from_reply(&reply).xclient, &mut out).ok()?;
        assert!(out.len() <= COMMAND_MAX);
        Some(String::from_utf8(out).unwrap())
    }

    const ALL: &str = "NAME REVERSE_NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

    #[test]
    fn commands() {
        let name = ClientName::verified("client.example");
        assert_eq!(
            command("203.0.113.9:4711", &name, "client", ALL).unwrap(),
            "XCLIENT ADDR=203.0.113.9 PORT=4711 PROTO=ESMTP DESTADDR=192.0.2.1 DESTPORT=25 \
             LOGIN=[UNAVAILABLE] NAME=client.example REVERSE_NAME=client.example HELO=client\r\n"
        );
        assert_eq!(
            command("[2001:db8::9]:1", &ClientName::Unavailable, "[x]", "addr NAME").unwrap(),
            "XCLIENT ADDR=2001:db8::9 NAME=[UNAVAILABLE]\r\n"
        );
        assert_eq!(
            command("[2001:db8::9]:1", &ClientName::Unavailable, "[x]", "NAME ADDR").unwrap(),
            "XCLIENT ADDR=IPV6:2001:db8::9 NAME=[UNAVAILABLE]\r\n"
        );
        assert_eq!(
            command("203.0.113.9:0", &name, "client", "ADDR PORT").unwrap(),
            "XCLIENT ADDR=203.0.113.9 PORT=[UNAVAILABLE]\r\n"
        );
        assert_eq!(command("203.0.113.9:1", &name, "client", "NAME PORT"), None);
    }

    /// What is not said keeps the gateway's own value at the backend.
    #[test]
    fn every_attribute_offered_is_told_or_cleared() {
        let reverse = |temporary| ClientName::Unconfirmed { reverse: "host.example".into(), temporary };
        for (name, told) in [
            (ClientName::verified("a_b.example"), "NAME=a_b.example REVERSE_NAME=a_b.example"),
            (reverse(false), "NAME=[UNAVAILABLE] REVERSE_NAME=host.example"),
            (reverse(true), "NAME=[TEMPUNAVAIL] REVERSE_NAME=host.example"),
            (ClientName::Unavailable, "NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE]"),
            (ClientName::TemporarilyUnavailable, "NAME=[TEMPUNAVAIL] REVERSE_NAME=[TEMPUNAVAIL]"),
        ] {
            let command = command("203.0.113.9:4711", &name, "client", "REVERSE_NAME ADDR NAME").unwrap();
            assert_eq!(command, format!("XCLIENT ADDR=203.0.113.9 {told}\r\n"));
        }
        for name in [ClientName::Unavailable, ClientName::verified("client.example")] {
            let command = command("203.0.113.9:4711", &name, &"h".repeat(300), ALL).unwrap();
            for attribute in ALL.split(' ') {
                assert!(command.contains(&format!(" {attribute}=")), "{command}");
            }
        }
    }

    #[test]
    fn of_a_client_that_nobody_named_nothing_is_claimed() {
        let balancer = "10.0.0.5:4711".parse().unwrap();
        let facts = XclientFacts {
            client: ClientAddr::unnamed(crate::identity::PeerAddr::from_socket(balancer)),
            name: &ClientName::verified("balancer.example"),
            helo: "client",
            esmtp: true,
            login: None,
            destination: "192.0.2.1:25".parse().unwrap(),
            ipv6_form: Ipv6Form::Prefixed,
        };
        let offered = XclientAttributes::ADDR.union(XclientAttributes::PORT).union(XclientAttributes::NAME);
        let mut out = Vec::new();
        encode_xclient(&facts, offered.union(XclientAttributes::REVERSE_NAME), &mut out).unwrap();
        assert_eq!(
            out.escape_ascii().to_string(),
            "XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE]\\r\\n"
        );
    }

    #[test]
    fn what_does_not_fit_is_not_cut() {
        let name = ClientName::verified(&format!("{}.example", "a.".repeat(120).trim_end_matches('.')));
        assert!(matches!(name, ClientName::Verified(_)));
        let long = command("[2001:db8:1111:2222:3333:4444:5555:6666]:65535", &name, &"h".repeat(255), ALL).unwrap();
        assert!(long.ends_with(" HELO=[UNAVAILABLE]\r\n"), "{long}");
    }

    #[test]
    fn a_name_cannot_inject() {
        for name in [
            "a b.example",
            "a\r\nRSET",
            "a=b",
            "a+20b",
            "",
            "a..b",
            "-a.example",
            "üx.example",
            "127.0.0.1",
            &"a".repeat(254),
        ] {
            assert_eq!(ClientName::verified(name), ClientName::Unavailable, "{name:?}");
        }
    }
}
