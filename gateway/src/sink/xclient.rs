//! XCLIENT as a server reads it (Postfix's XCLIENT_README): xtext values, addresses with their `IPV6:` prefix, unknown
//! attributes refused. Stricter than Postfix where a gateway has no excuse.

use std::net::IpAddr;

use super::event::{By, Client, ClientName};
use super::path::xtext;

/// What EHLO offers.
pub(super) const OFFER: &str = "XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT";
/// The longest value, as it is sent.
const VALUE_LEN_MAX: usize = 255;
/// The longest command, with its CRLF.
const COMMAND_LEN_MAX: usize = 512;

/// What `client` becomes by XCLIENT with these arguments; otherwise the reply that says what is wrong with them.
///
/// PROTO and HELO that are not in the command are forgotten, the rest stays, as with Postfix.
pub(super) fn apply(client: &Client, arguments: &str) -> Result<Client, &'static [u8]> {
    if "XCLIENT ".len() + arguments.len() + "\r\n".len() > COMMAND_LEN_MAX {
        return Err(b"501 5.5.4 XCLIENT is longer than 512 bytes\r\n");
    }
    let mut client = Client { by: By::Xclient, proto: None, helo: None, ..client.clone() };
    let mut any = false;
    for attribute in arguments.split(' ').filter(|word| !word.is_empty()) {
        any = true;
        let (name, value) = attribute.split_once('=').ok_or(b"501 5.5.4 XCLIENT wants NAME=VALUE\r\n".as_slice())?;
        if value.is_empty() || value.len() > VALUE_LEN_MAX {
            return Err(b"501 5.5.4 An XCLIENT value is empty or longer than 255 bytes\r\n");
        }
        let value = text(value).ok_or(b"501 5.5.4 An XCLIENT value is not clean xtext\r\n".as_slice())?;
        set(&mut client, &name.to_ascii_uppercase(), value)?;
    }
    if any { Ok(client) } else { Err(b"501 5.5.4 XCLIENT wants attributes\r\n") }
}

fn set(client: &mut Client, name: &str, value: String) -> Result<(), &'static [u8]> {
    let bad = |reply: &'static str| move |Malformed| reply.as_bytes();
    match name {
        "NAME" => client.name = client_name(value).map_err(bad("501 5.5.4 Bad XCLIENT NAME\r\n"))?,
        "ADDR" => client.believed = address(&value).map_err(bad("501 5.5.4 Bad XCLIENT ADDR\r\n"))?,
        "PORT" => client.port = port(&value).map_err(bad("501 5.5.4 Bad XCLIENT PORT\r\n"))?,
        "DESTADDR" => client.destination = address(&value).map_err(bad("501 5.5.4 Bad XCLIENT DESTADDR\r\n"))?,
        "DESTPORT" => client.destination_port = port(&value).map_err(bad("501 5.5.4 Bad XCLIENT DESTPORT\r\n"))?,
        "HELO" => client.helo = Some(value).filter(|value| !is_unavailable(value)),
        "PROTO" if value == "SMTP" || value == "ESMTP" => client.proto = Some(value),
        "PROTO" => return Err(b"501 5.5.4 Bad XCLIENT PROTO\r\n"),
        _ => return Err(b"501 5.5.4 Unknown XCLIENT attribute\r\n"),
    }
    Ok(())
}

/// A value that cannot be read.
struct Malformed;

/// A value decoded. Control characters have no business in one, however well they are encoded.
fn text(value: &str) -> Option<String> {
    String::from_utf8(xtext(value)?).ok().filter(|text| !text.contains(char::is_control))
}

fn is_unavailable(value: &str) -> bool {
    matches!(value, "[UNAVAILABLE]" | "[TEMPUNAVAIL]")
}

fn client_name(value: String) -> Result<ClientName, Malformed> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    match &*value {
        "[UNAVAILABLE]" => Ok(ClientName::Unavailable),
        "[TEMPUNAVAIL]" => Ok(ClientName::TemporarilyUnavailable),
        name if name.chars().all(valid) => Ok(ClientName::Known(value)),
        _ => Err(Malformed),
    }
}

/// `None`: it is not available.
fn address(value: &str) -> Result<Option<IpAddr>, Malformed> {
    if is_unavailable(value) {
        return Ok(None);
    }
    let address = match value.split_at_checked(5) {
        Some((prefix, v6)) if prefix.eq_ignore_ascii_case("IPV6:") => v6.parse().map(IpAddr::V6),
        _ => value.parse().map(IpAddr::V4),
    };
    address.map(|address| Some(address.to_canonical())).map_err(|_| Malformed)
}

/// `None`: it is not available.
fn port(value: &str) -> Result<Option<u16>, Malformed> {
    if is_unavailable(value) {
        return Ok(None);
    }
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    value.parse().ok().filter(|port| *port != 0).map(Some).ok_or(Malformed)
}
