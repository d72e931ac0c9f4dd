//! Runs a transcript (`tests/dialogs/*.txt`) against the session core, without a socket.
//!
//! A transcript is what a mail administrator would read in a packet capture, a line a step:
//!
//! ```text
//! # A comment.
//! @ setting = value        see `Settings` below
//! C: EHLO client.example   the client sends this line (CRLF added); lines that follow each other are one packet
//! C> raw\r\n\0\x0b         the client sends these bytes
//! S: 250 …                 the client receives this line; `…` at the end stands for any text
//! B+                       the gateway dials the backend, and the connection stands (`B+ refused`: it does not)
//! B< 220 backend           the backend sends this line;  B<> the same, raw
//! B> MAIL FROM:<a@b.c>     the backend receives this line;  B>> the same, raw
//! B-                       the gateway closes the backend's connection;   B! the backend closes it
//! S-                       the gateway closes the client's connection;    C! the client closes it
//! T+ 300                   seconds pass
//! ```
//!
//! Whatever the gateway sends must be expected: bytes left over at the end fail the transcript.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smtp_gateway::config::{
    Backend, BareNewline, Config, Control, Dns, EarlyTalk, HostPort, IdentityMode, Limits, Listener, Log, Server,
    Timeouts,
};
use smtp_gateway::identity::xclient::ClientName;
use smtp_gateway::identity::{ClientAddr, PeerAddr};
use smtp_gateway::policy::domains::DomainSet;
use smtp_gateway::policy::relay_guard::RelayGuard;
use smtp_gateway::session::{Action, Dialect, MessageOutcome, Millis, Output, Session, Settings};
use smtp_gateway::smtp::ehlo::{Keywords, Offer};
use smtp_gateway::smtp::reply::{ReplyParse, parse_reply};

/// How a transcript's bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets {
    /// As the transcript groups them.
    Whole,
    /// Each byte in a packet of its own.
    Bytes,
}

/// Runs one transcript; the error says which line failed, and how.
pub fn run(transcript: &str, packets: Packets) -> Result<(), String> {
    let settings = read_settings(transcript)?;
    if packets == Packets::Bytes && settings.contains_key("whole_packets_only") {
        return Ok(());
    }
    let mut stage = Stage::new(&settings)?;
    let mut lines = transcript.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let step = if let Some(first) = client_bytes(line)? {
            let mut packet = first;
            while let Some(more) = lines.peek().map(|(_, next)| client_bytes(next)).transpose()?.flatten() {
                packet.extend(more);
                lines.next();
            }
            stage.client_sends(&packet, packets);
            Ok(())
        } else {
            stage.step(line, packets)
        };
        step.map_err(|error| format!("line {}: `{line}`: {error}", number + 1))?;
    }
    stage.finish()
}

fn client_bytes(line: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = line.strip_prefix("C:") {
        return Ok(Some([text.strip_prefix(' ').unwrap_or(text).as_bytes(), b"\r\n"].concat()));
    }
    line.strip_prefix("C> ").map(unescape).transpose()
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let (mut bytes, mut rest) = (Vec::new(), text.chars());
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.to_string().bytes());
            continue;
        }
        bytes.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("bad escape \\x{digits}"))?
            }
            other => return Err(format!("bad escape \\{other:?}")),
        });
    }
    Ok(bytes)
}

fn read_settings(transcript: &str) -> Result<HashMap<String, String>, String> {
    let lines = transcript.lines().filter_map(|line| line.strip_prefix("@ "));
    lines
        .map(|line| {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("`{line}`: no `=`"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// A client on one side of the core, a backend on the other.
struct Stage {
    session: Session,
    out: Output,
    now: Millis,
    name: ClientName,
    /// Sent by the client, not yet used by the core.
    client_in: Vec<u8>,
    client_eof: bool,
    backend_in: Vec<u8>,
    /// Sent by the core, not yet expected.
    to_client: Vec<u8>,
    to_backend: Vec<u8>,
    dialled: bool,
    backend_closed: bool,
    client_closed: bool,
    outcomes: Vec<MessageOutcome>,
}

const DESTINATION: &str = "192.0.2.1:25";
const OFFERS: &str = "PIPELINING,SIZE 10240000,8BITMIME,DSN,CHUNKING,SMTPUTF8,ENHANCEDSTATUSCODES";

impl Stage {
    fn new(settings: &HashMap<String, String>) -> Result<Self, String> {
        let value = |key: &str, default: &str| settings.get(key).cloned().unwrap_or_else(|| default.to_owned());
        let config = config(settings)?;
        let offers = value("backend_offers", OFFERS);
        let dialect = match &*offers {
            "unknown" => Dialect::unknown(&config.server.hostname),
            offers => dialect(offers, &config),
        };
        let client: SocketAddr = value("client", "203.0.113.9:4711").parse().map_err(|_| "bad client")?;
        let client = ClientAddr::direct(PeerAddr::from_socket(client));
        let now = Millis(1000);
        let mut session = Session::new(Arc::new(Settings::new(&config, 0, true)), Arc::new(dialect), client, now);
        let mut out = Output::default();
        session.greet(&mut out);
        let mut stage = Self {
            session,
            out,
            now,
            name: settings.get("name").map_or(ClientName::Unavailable, |name| ClientName::verified(name)),
            client_in: Vec::new(),
            client_eof: false,
            backend_in: Vec::new(),
            to_client: Vec::new(),
            to_backend: Vec::new(),
            dialled: false,
            backend_closed: false,
            client_closed: false,
            outcomes: Vec::new(),
        };
        stage.collect();
        Ok(stage)
    }

    fn step(&mut self, line: &str, packets: Packets) -> Result<(), String> {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" | "@" => Ok(()),
            "S:" => expect_line(&mut self.to_client, rest),
            "B>" => expect_line(&mut self.to_backend, rest),
            "B>>" => expect_bytes(&mut self.to_backend, &unescape(rest)?),
            "B<" => {
                self.backend_sends(&[rest.as_bytes(), b"\r\n"].concat(), packets);
                Ok(())
            }
            "B<>" => {
                self.backend_sends(&unescape(rest)?, packets);
                Ok(())
            }
            "B+" => self.dial(rest),
            "B-" => take_flag(&mut self.backend_closed, "the backend's connection is open"),
            "S-" => take_flag(&mut self.client_closed, "the client's connection is open"),
            "B!" => {
                self.session.backend_closed(self.now, &mut self.out);
                self.pump();
                Ok(())
            }
            "C!" => {
                self.client_eof = true;
                self.pump();
                Ok(())
            }
            "T+" => {
                let seconds = rest.parse().map_err(|_| "seconds are needed")?;
                self.now = self.now.after(Duration::from_secs(seconds));
                self.session.tick(self.now, false, &mut self.out);
                self.pump();
                Ok(())
            }
            _ => Err("no such step".to_owned()),
        }
    }

    fn dial(&mut self, how: &str) -> Result<(), String> {
        take_flag(&mut self.dialled, "the backend was not dialled")?;
        self.backend_closed = false;
        match how {
            "refused" => self.session.backend_unreachable(self.now, &mut self.out),
            _ => {
                let destination = DESTINATION.parse().map_err(|_| "bad destination")?;
                self.session.backend_connected(self.now, destination, &mut self.out);
            }
        }
        self.pump();
        Ok(())
    }

    fn client_sends(&mut self, bytes: &[u8], packets: Packets) {
        for packet in split(bytes, packets) {
            self.client_in.extend_from_slice(packet);
            self.pump();
        }
    }

    fn backend_sends(&mut self, bytes: &[u8], packets: Packets) {
        for packet in split(bytes, packets) {
            self.backend_in.extend_from_slice(packet);
            self.pump();
        }
    }

    /// Does what the driver does until nothing moves.
    fn pump(&mut self) {
        loop {
            self.collect();
            if !self.backend_in.is_empty() {
                let used = self.session.backend_bytes(self.now, &self.backend_in, &mut self.out);
                self.backend_in.drain(..used);
                if used > 0 {
                    continue;
                }
            }
            if !self.session.wants_client() {
                break;
            }
            let taken = self.session.client_bytes(self.now, &mut self.client_in, &mut self.out);
            let forward = self.client_in[taken.forward.clone()].to_vec();
            self.collect();
            self.to_backend.extend_from_slice(&forward);
            self.client_in.drain(..taken.used);
            if taken.used == 0 {
                break;
            }
        }
        if self.client_eof && self.session.wants_client() {
            self.client_eof = false;
            self.session.client_closed(self.now, false, &mut self.out);
        }
        self.collect();
    }

    fn collect(&mut self) {
        self.to_client.append(&mut self.out.to_client);
        self.to_backend.append(&mut self.out.to_backend);
        for action in std::mem::take(&mut self.out.actions) {
            match action {
                Action::Dial => self.dialled = true,
                Action::LookUpName => self.session.client_name(self.now, self.name.clone(), &mut self.out),
                Action::CloseBackend => {
                    self.backend_closed = true;
                    self.backend_in.clear();
                }
                Action::CloseClient => self.client_closed = true,
                Action::Message(report) => self.outcomes.push(report.outcome),
                Action::RelayDenied | Action::EarlyTalk | Action::IdentityFailed(_) | Action::DialectStale => {}
            }
        }
    }

    fn finish(self) -> Result<(), String> {
        let left = |side: &str, bytes: &[u8]| {
            if bytes.is_empty() { Ok(()) } else { Err(format!("{side} received more: {}", bytes.escape_ascii())) }
        };
        left("the client", &self.to_client)?;
        left("the backend", &self.to_backend)?;
        if self.dialled {
            return Err("the backend was dialled".to_owned());
        }
        if self.client_closed {
            return Err("the client's connection was closed".to_owned());
        }
        Ok(())
    }
}

fn split(bytes: &[u8], packets: Packets) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(match packets {
        Packets::Whole => bytes.len().max(1),
        Packets::Bytes => 1,
    })
}

fn take_flag(flag: &mut bool, otherwise: &str) -> Result<(), String> {
    if std::mem::take(flag) { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn expect_line(sent: &mut Vec<u8>, expected: &str) -> Result<(), String> {
    let Some(length) = sent.windows(2).position(|pair| pair == b"\r\n") else {
        return Err(format!("no line came, only `{}`", sent.escape_ascii()));
    };
    let line: Vec<u8> = sent.drain(..length + 2).take(length).collect();
    let line = String::from_utf8_lossy(&line);
    let matches = match expected.strip_suffix('…') {
        Some(head) => line.starts_with(head),
        None => line == expected,
    };
    if matches { Ok(()) } else { Err(format!("`{line}` came")) }
}

fn expect_bytes(sent: &mut Vec<u8>, expected: &[u8]) -> Result<(), String> {
    if sent.starts_with(expected) {
        sent.drain(..expected.len());
        return Ok(());
    }
    Err(format!("`{}` came", sent.escape_ascii()))
}

fn dialect(offers: &str, config: &Config) -> Dialect {
    let lines: Vec<&str> = std::iter::once("backend").chain(offers.split(',')).collect();
    let mut reply = String::new();
    for (index, line) in lines.iter().enumerate() {
        let separator = if index + 1 == lines.len() { ' ' } else { '-' };
        reply.push_str(&format!("250{separator}{line}\r\n"));
    }
    let ReplyParse::Complete { reply, .. } = parse_reply(reply.as_bytes()) else { panic!("no EHLO reply") };
    Dialect::new(&config.server.hostname, &config.limits, &Offer::from_reply(&reply), &Keywords::from_reply(&reply))
}

fn config(settings: &HashMap<String, String>) -> Result<Config, String> {
    let mut config = Config {
        server: Server {
            hostname: "mx.example.com".to_owned(),
            workers: 1,
            early_talk: EarlyTalk::Reject,
            greet_delay: Duration::ZERO,
            bare_newline: BareNewline::Reject,
        },
        listeners: vec![Listener {
            address: "127.0.0.1:25".parse().map_err(|_| "address")?,
            backend: 0,
            proxy_protocol_from: Vec::new(),
        }],
        backends: vec![Backend {
            name: "backend".to_owned(),
            address: HostPort::Name("backend".to_owned(), 25),
            identity: IdentityMode::None,
        }],
        relay: RelayGuard { local_domains: domains("local.test")?, allowed_networks: Vec::new() },
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        dns: Dns::default(),
        control: Control::default(),
        log: Log::default(),
    };
    for (key, value) in settings {
        let number = || value.parse::<u32>().map_err(|_| format!("{key}: a number is needed"));
        match &**key {
            "identity" => {
                config.backends[0].identity = match &**value {
                    "none" => IdentityMode::None,
                    "xclient" => IdentityMode::Xclient,
                    "proxy-v1" => IdentityMode::ProxyV1,
                    "proxy-v2" => IdentityMode::ProxyV2,
                    other => return Err(format!("no identity {other}")),
                }
            }
            "local_domains" => config.relay.local_domains = domains(value)?,
            "allowed_networks" => {
                let networks = value.split_whitespace().map(str::parse).collect::<Result<_, _>>();
                config.relay.allowed_networks = networks.map_err(|_| "bad network")?;
            }
            "early_talk" => config.server.early_talk = if value == "log" { EarlyTalk::Log } else { EarlyTalk::Reject },
            "bare_newline" => {
                config.server.bare_newline =
                    if value == "normalize" { BareNewline::Normalize } else { BareNewline::Reject };
            }
            "recipients" => config.limits.recipients = number()?,
            "errors" => config.limits.errors = number()?,
            "idle_commands" => config.limits.idle_commands = number()?,
            "messages_per_session" => config.limits.messages_per_session = number()?,
            "message_size" => config.limits.message_size = number()?.into(),
            "text_line" => config.limits.text_line = number()? as usize,
            "header_size" => config.limits.header_size = number()? as usize,
            "received_hops" => config.limits.received_hops = number()? as usize,
            "client" | "name" | "backend_offers" | "whole_packets_only" => {}
            other => return Err(format!("no setting {other}")),
        }
    }
    Ok(config)
}

fn domains(list: &str) -> Result<DomainSet, String> {
    let mut set = DomainSet::new();
    for entry in list.split_whitespace() {
        set.insert(entry).map_err(|error| error.to_string())?;
    }
    Ok(set)
}
