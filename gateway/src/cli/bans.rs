//! `ban`, `unban`, `bans`: who is kept out.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use crate::config::parse_duration;
use crate::control::{BAN_MAX, BanStatus, REASON_MAX, ask_ban, ask_bans, ask_unban, render_bans};
use crate::identity::Source;
use crate::observe::show::span;

use super::failure::Failure;
use super::socket::{SocketArguments, shown};

#[derive(Debug, Args)]
pub(super) struct BanArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// An address such as 192.0.2.1, or a network such as 192.0.2.0/24; an IPv6 address stands for its /64
    #[arg(value_name = "ADDRESS|PREFIX", value_parser = target)]
    target: IpNet,
    /// How long, such as 30m or 12h
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = length)]
    length: Duration,
    /// Why, for whoever reads `bans` later
    #[arg(long, value_name = "TEXT", default_value = "banned by hand", value_parser = reason)]
    reason: String,
    /// One JSON object instead of a sentence
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct UnbanArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// As `bans` shows it
    #[arg(value_name = "ADDRESS|PREFIX", value_parser = target)]
    target: IpNet,
    /// One JSON object instead of a sentence
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct BansArguments {
    #[command(flatten)]
    socket: SocketArguments,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn ban(arguments: &BanArguments) -> Result<(), Failure> {
    let BanArguments { socket, target, length, reason, json } = arguments;
    let ban = ask_ban(&socket.path()?, *target, *length, reason)?;
    say(&ban, *json, format_args!("{} is banned for {}", ban.address, span(length.as_secs())))
}

pub(super) fn unban(arguments: &UnbanArguments) -> Result<(), Failure> {
    let UnbanArguments { socket, target, json } = arguments;
    let ban = ask_unban(&socket.path()?, *target)?;
    say(&ban, *json, format_args!("{} is let in again; it was banned for: {}", ban.address, ban.reason))
}

pub(super) fn bans(arguments: &BansArguments) -> Result<(), Failure> {
    let bans = ask_bans(&arguments.socket.path()?)?;
    let mut stdout = io::stdout().lock();
    let written = if arguments.json {
        serde_json::to_string(&bans).map_err(io::Error::from).and_then(|json| writeln!(stdout, "{json}"))
    } else {
        stdout.write_all(render_bans(&bans, stdout.is_terminal()).as_bytes())
    };
    shown(written).map(drop)
}

fn say(ban: &BanStatus, json: bool, sentence: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = if json {
        serde_json::to_string(ban).map_err(io::Error::from).and_then(|json| writeln!(stdout, "{json}"))
    } else {
        let note = ban.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
        writeln!(stdout, "{sentence}{note}")
    };
    shown(written).map(drop)
}

pub(super) fn target(text: &str) -> Result<IpNet, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Source::of(ip).network());
    }
    let network = text.parse::<IpNet>().map_err(|_| {
        "write an address such as 192.0.2.1, or a network such as 192.0.2.0/24 or 2001:db8::/32".to_owned()
    })?;
    if network.addr().to_canonical() != network.addr() {
        return Err("this is IPv4 written as IPv6; write it as IPv4".to_owned());
    }
    let (whole, one) = (network.trunc(), network.addr());
    if whole != network {
        return Err(format!("bits are set behind the prefix; write {whole} for the whole network, or {one}"));
    }
    Ok(network)
}

fn length(text: &str) -> Result<Duration, String> {
    let help = "write a whole number and `s`, `m` or `h`, such as 30m or 12h";
    let length = parse_duration(text).ok_or(help)?;
    if (Duration::from_secs(1)..=BAN_MAX).contains(&length) {
        Ok(length)
    } else {
        Err(format!("a ban lasts from 1s to {}h", BAN_MAX.as_secs() / 3600))
    }
}

fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a ban has a reason; say which".to_owned()),
        text if text.len() > REASON_MAX => Err(format!("write {REASON_MAX} bytes at most")),
        text => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("::ffff:192.0.2.1", Some("192.0.2.1/32")),
            ("2001:db8::1", Some("2001:db8::/64")),
            ("2001:db8::1/128", Some("2001:db8::1/128")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("192.0.2.1/24", None),
            ("::ffff:192.0.2.0/120", None),
            ("192.0.2.1/33", None),
            ("192.0.2", None),
            ("mail.example.com", None),
            ("", None),
            ("192.0.2.1 ", None),
        ] {
            assert_eq!(target(text).ok().map(|network| network.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn lengths() {
        for (text, seconds) in [("1s", Some(1)), ("30m", Some(1800)), ("8784h", Some(366 * 24 * 3600))] {
            assert_eq!(length(text).ok().map(|length| length.as_secs()), seconds, "{text}");
        }
        for text in ["", "0s", "999ms", "8785h", "1", "h", "1d", "-1h", "99999999999999999999h"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
