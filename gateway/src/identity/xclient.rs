//! The one XCLIENT command that tells the backend who the client is (Postfix XCLIENT_README).

use std::net::{IpAddr, SocketAddr};

use crate::smtp::ehlo::XclientAttributes;
use crate::smtp::xtext;

use super::ClientAddr;

/// The client's host name, as far as DNS vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// A name whose addresses include the client's.
    Verified(Box<str>),
    /// There is none.
    Unavailable,
    /// The look-up failed.
    TemporarilyUnavailable,
}

impl ClientName {
    /// A forward-confirmed name. Whoever controls the reverse zone chooses its bytes (CVE-2026-28753), so a name that is
    /// not made of letters, digits, hyphens and dots is none; nor is one that could be read as an address.
    pub fn verified(name: &str) -> Self {
        let label =
            |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
        let bytes = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        if bytes
            && name.len() <= 253
            && name.split('.').all(label)
            && name.rsplit('.').next().is_some_and(|top| !number(top))
        {
            Self::Verified(name.into())
        } else {
            Self::Unavailable
        }
    }
}

/// What can be told of a client.
#[derive(Debug)]
pub struct XclientFacts<'a> {
    /// Who it is.
    pub client: ClientAddr,
    /// Its name.
    pub name: &'a ClientName,
    /// How it named itself.
    pub helo: &'a str,
    /// Whether it said EHLO.
    pub esmtp: bool,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddrNotOffered;

/// Longest command in bytes, CRLF included.
const COMMAND_MAX: usize = 512;
/// Longest encoded value in bytes.
const VALUE_MAX: usize = 255;

/// Appends the command with everything that is offered, CRLF included: Postfix forgets what the last XCLIENT did not say.
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
    add(XclientAttributes::ADDR, "ADDR", address(facts.client.ip(), facts.ipv6_form).as_bytes());
    add(XclientAttributes::PORT, "PORT", facts.client.port().to_string().as_bytes());
    add(XclientAttributes::PROTO, "PROTO", if facts.esmtp { b"ESMTP" } else { b"SMTP" });
    add(
        XclientAttributes::DESTADDR,
        "DESTADDR",
        address(facts.destination.ip().to_canonical(), facts.ipv6_form).as_bytes(),
    );
    add(XclientAttributes::DESTPORT, "DESTPORT", facts.destination.port().to_string().as_bytes());
    add(
        XclientAttributes::NAME,
        "NAME",
        &match facts.name {
            ClientName::Verified(name) => encoded(name),
            ClientName::Unavailable => b"[UNAVAILABLE]".to_vec(),
            ClientName::TemporarilyUnavailable => b"[TEMPUNAVAIL]".to_vec(),
        },
    );
    // The longest value comes last: should it not fit, it is the one that can be done without.
    let helo = encoded(facts.helo);
    let fits = |value: &[u8]| value.len() <= VALUE_MAX;
    let used = out.len() - start;
    if offered.contains(XclientAttributes::HELO) {
        let value = if fits(&helo) && used + " HELO=\r\n".len() + helo.len() <= COMMAND_MAX {
            helo
        } else {
            b"[UNAVAILABLE]".to_vec()
        };
        out.extend_from_slice(b" HELO=");
        out.extend_from_slice(&value);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn address(ip: IpAddr, form: Ipv6Form) -> String {
    match (ip, form) {
        (IpAddr::V6(ip), Ipv6Form::Prefixed) => format!("IPV6:{ip}"),
        _ => ip.to_string(),
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
            destination: "192.0.2.1:25".parse().unwrap(),
            ipv6_form: if offered.starts_with("addr") { Ipv6Form::Bare } else { Ipv6Form::Prefixed },
        };
        let mut out = Vec::new();
        encode_xclient(&facts, Offer::from_reply(&reply).xclient, &mut out).ok()?;
        assert!(out.len() <= COMMAND_MAX);
        Some(String::from_utf8(out).unwrap())
    }

    const ALL: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

    #[test]
    fn commands() {
        let name = ClientName::verified("client.example");
        assert_eq!(
            command("203.0.113.9:4711", &name, "client", ALL).unwrap(),
            "XCLIENT ADDR=203.0.113.9 PORT=4711 PROTO=ESMTP DESTADDR=192.0.2.1 DESTPORT=25 NAME=client.example HELO=client\r\n"
        );
        assert_eq!(
            command("[2001:db8::9]:1", &ClientName::Unavailable, "[x]", "addr NAME").unwrap(),
            "XCLIENT ADDR=2001:db8::9 NAME=[UNAVAILABLE]\r\n"
        );
        assert_eq!(
            command("[2001:db8::9]:1", &ClientName::Unavailable, "[x]", "NAME ADDR").unwrap(),
            "XCLIENT ADDR=IPV6:2001:db8::9 NAME=[UNAVAILABLE]\r\n"
        );
        assert_eq!(command("203.0.113.9:1", &name, "client", "NAME PORT"), None);
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
