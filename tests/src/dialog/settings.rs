//! A transcript's settings: what the gateway was told, and what it has learned of its backend.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use smtp_gateway::config::{BackendTls, BareNewline, Config, EarlyTalk, IdentityMode, Service};
use smtp_gateway::identity::{ClientAddr, PeerAddr};
use smtp_gateway::session::{Dialect, Session, Settings, Sizes, Start, TlsOffer};
use smtp_gateway::smtp::domains::DomainSet;
use smtp_gateway::smtp::ehlo::{Keywords, Offer};
use smtp_gateway::smtp::reply::{ReplyParse, parse_reply};
use smtp_gateway::time::Millis;

/// Name and value, as written.
pub type Map = HashMap<String, String>;

/// What the backend offers unless a transcript says otherwise.
const OFFERS: &str = "PIPELINING,SIZE 10240000,8BITMIME,DSN,CHUNKING,SMTPUTF8,ENHANCEDSTATUSCODES";

/// Reads the `@` lines.
pub fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Map, String> {
    lines
        .filter_map(|line| line.strip_prefix("@ "))
        .map(|line| {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("`{line}`: no `=`"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// A session with these settings, not greeted yet.
pub fn session(settings: &Map, now: Millis) -> Result<Session, String> {
    let config = config(settings)?;
    let value = |key: &str, default: &str| settings.get(key).cloned().unwrap_or_else(|| default.to_owned());
    let dialect = match &*value("backend_offers", OFFERS) {
        "unknown" => Dialect::unknown(&config.server.hostname),
        offers => dialect(offers, &config, settings.contains_key("backend_verified"))?,
    };
    let client: SocketAddr = value("client", "203.0.113.9:4711").parse().map_err(|_| "bad client")?;
    let peer = PeerAddr::from_socket(client);
    let client = if settings.contains_key("unnamed") { ClientAddr::unnamed(peer) } else { ClientAddr::direct(peer) };
    let mut session_settings = Settings::new(&config, 0, true);
    session_settings.asks_recipients = settings.contains_key("asks_recipients");
    let dialect = session_settings.dialect(Arc::new(dialect));
    let start = Start {
        settings: Arc::new(session_settings),
        dialect,
        client_addr: client,
        tls: match &*value("starttls", "") {
            "" => TlsOffer::None,
            "later" => TlsOffer::StartTlsLater,
            _ => TlsOffer::StartTls,
        },
    };
    Ok(Session::new(start, now))
}

fn dialect(offers: &str, config: &Config, verified: bool) -> Result<Dialect, String> {
    let lines: Vec<&str> =
        std::iter::once("backend").chain(offers.split(',')).filter(|line| !line.is_empty()).collect();
    let mut reply = String::new();
    for (index, line) in lines.iter().enumerate() {
        let separator = if index + 1 == lines.len() { ' ' } else { '-' };
        reply.push_str(&format!("250{separator}{line}\r\n"));
    }
    let ReplyParse::Complete { reply, .. } = parse_reply(reply.as_bytes()) else {
        return Err(format!("`{offers}` is no EHLO reply"));
    };
    let (offer, keywords) = (Offer::from_reply(&reply), Keywords::from_reply(&reply));
    Ok(Dialect::new(&config.server.hostname, Sizes::new(config), &offer, &keywords, verified))
}

const CONFIG: &str = r#"
[server]
hostname = "mx.example.com"
[[listener]]
address = "127.0.0.1:25"
[[backend]]
address = "backend"
identity = "none"
[relay]
local_domains = ["local.test"]
"#;

/// A second backend, and a route to it.
const SECOND: &str = r#"
[[backend]]
name = "second"
address = "second"
identity = "none"
[[route]]
backend = "second"
"#;

fn parsed(text: &str) -> Result<Config, String> {
    smtp_gateway::config::parse(text, "dialog")
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<String>())
}

fn config(settings: &Map) -> Result<Config, String> {
    // Thousands of sessions begin from it.
    static PARSED: LazyLock<Result<Config, String>> = LazyLock::new(|| parsed(CONFIG));
    let mut config = match (settings.get("route"), settings.get("user_route")) {
        (Some(recipient), _) => parsed(&format!("{CONFIG}{SECOND}recipients = [\"{recipient}\"]\n"))?,
        (None, Some(user)) => parsed(&format!("{CONFIG}{SECOND}users = [\"{user}\"]\n"))?,
        (None, None) => PARSED.clone()?,
    };
    for (key, value) in settings {
        set(&mut config, key, value).map_err(|error| format!("{key}: {error}"))?;
    }
    Ok(config)
}

fn set(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<u32>().map_err(|_| "a number is needed".to_owned());
    match key {
        "identity" => {
            let named = IdentityMode::ALL.into_iter().find(|mode| mode.as_str() == value);
            config.backends[0].identity = named.ok_or_else(|| format!("no identity {value}"))?;
        }
        // They stand in the text.
        "route" | "user_route" => {}
        "servers" => {
            let servers = usize::try_from(number()?).map_err(|_| "too many")?;
            config.backends.resize(servers, config.backends[0].clone());
            config.pools[0].servers = 0..servers;
        }
        "backend_tls" => {
            let named = BackendTls::ALL.into_iter().find(|policy| policy.as_str() == value);
            config.backends[0].tls = named.ok_or_else(|| format!("no policy {value}"))?;
        }
        "second_tls" => {
            let named = BackendTls::ALL.into_iter().find(|policy| policy.as_str() == value);
            let second = config.backends.get_mut(1).ok_or("there is no second backend")?;
            second.tls = named.ok_or_else(|| format!("no policy {value}"))?;
        }
        "clear_text_auth" => config.backends[0].clear_text_auth = value == "true",
        "local_domains" => config.relay.local_domains = domains(value)?,
        "allowed_networks" => {
            config.relay.allowed_networks = networks(value)?;
        }
        "service" => {
            let named = Service::ALL.into_iter().find(|service| service.as_str() == value);
            config.listeners[0].service = named.ok_or_else(|| format!("no service {value}"))?;
        }
        "xclient_login" => config.backends[0].xclient_login = value == "true",
        "relay_without_auth" => config.listeners[0].relay_without_auth = value == "true",
        "clear_text_networks" => config.submission.clear_text_networks = networks(value)?,
        "senders" => config.submission.senders = value.split_whitespace().map(str::to_owned).collect(),
        "submission_size" => config.submission.message_size = Some(number()?.into()),
        "submission_recipients" => config.submission.recipients = Some(number()?),
        "auth_failures" => config.limits.auth_failures = number()?,
        "early_talk" => {
            config.server.early_talk = match value {
                "log" => EarlyTalk::Log,
                "reject" => EarlyTalk::Reject,
                other => return Err(format!("no rule {other}")),
            }
        }
        "bare_newline" => {
            config.server.bare_newline = match value {
                "normalize" => BareNewline::Normalize,
                "reject" => BareNewline::Reject,
                other => return Err(format!("no rule {other}")),
            }
        }
        "recipients" => config.limits.recipients = number()?,
        "errors" => config.limits.errors = number()?,
        "idle_commands" => config.limits.idle_commands = number()?,
        "messages_per_session" => config.limits.messages_per_session = number()?,
        "message_size" => config.limits.message_size = number()?.into(),
        "minimum_rate" => config.limits.minimum_rate = number()?.into(),
        "text_line" => config.limits.text_line = Some(size(number()?)?),
        "header_size" => config.limits.header_size = size(number()?)?,
        "received_hops" => config.limits.received_hops = size(number()?)?,
        "client" | "unnamed" | "asks_recipients" | "name" | "reverse" | "backend_offers" | "whole_packets_only"
        | "greeting" | "starttls" | "backend_verified" | "on_this_host" | "crammed" => {}
        _ => return Err("no such setting".to_owned()),
    }
    Ok(())
}

fn size(number: u32) -> Result<usize, String> {
    usize::try_from(number).map_err(|error| error.to_string())
}

fn networks<N: FromStr>(list: &str) -> Result<Vec<N>, String> {
    list.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| "bad network".to_owned())
}

fn domains(list: &str) -> Result<DomainSet, String> {
    let mut set = DomainSet::new();
    for entry in list.split_whitespace() {
        set.insert(entry).map_err(|error| error.to_string())?;
    }
    Ok(set)
}
