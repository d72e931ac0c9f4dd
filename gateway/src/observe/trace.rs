//! One client's dialog, followed live by an administrator: commands and replies, never bodies nor credentials.
//!
//! While nobody follows anybody, a session pays one relaxed load. Who follows must say so again and again: a trace that
//! nobody renews ends by itself after a few seconds.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::time::clock::since_1970;

use super::events::bounded;
use super::recent::{Numbered, Recent};

/// How long a trace lasts unless it is renewed.
const LEASE: Duration = Duration::from_secs(5);
/// Networks that are followed at once.
const FOLLOWED_MAX: usize = 8;
/// Lines that are remembered, and that may wait to be taken over.
const LINES_MAX: usize = 4096;
/// Longest line in characters.
const TEXT_MAX: usize = 600;

/// Who says a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speaker {
    /// The client, to the gateway.
    Client,
    /// The gateway, to the client.
    Gateway,
    /// Nobody: something happened.
    Event,
}

/// A line of a dialog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceLine {
    /// Grows with each line.
    pub number: u64,
    /// Milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// The session's id, by which `sessions kill` ends it.
    pub session: u64,
    /// Who the gateway believes the client to be.
    pub client: IpAddr,
    /// Who says it.
    pub speaker: Speaker,
    /// Without its end. Nothing in it steers a terminal.
    pub text: String,
}

impl Numbered for TraceLine {
    fn number(&self) -> u64 {
        self.number
    }
}

/// How many leases there may be; 0 while nobody follows.
static LEASES: AtomicUsize = AtomicUsize::new(0);
static FOLLOWED: RwLock<Vec<(IpNet, Instant)>> = RwLock::new(Vec::new());
static LINES: LazyLock<Recent<TraceLine>> = LazyLock::new(|| Recent::new(LINES_MAX, LINES_MAX));
/// Leases are taken one at a time.
static RENEWING: Mutex<()> = Mutex::new(());

/// Follows a network for a few seconds from now; whether there was room for one more.
pub fn follow(network: IpNet) -> bool {
    let _one = RENEWING.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut followed = FOLLOWED.write().unwrap_or_else(PoisonError::into_inner);
    followed.retain(|(other, until)| *until > now && *other != network);
    let room = followed.len() < FOLLOWED_MAX;
    if room {
        followed.push((network, now + LEASE));
    }
    LEASES.store(followed.len(), Ordering::Relaxed);
    room
}

/// Ends what nobody has renewed. To be called about once a second.
pub fn sweep() {
    if LEASES.load(Ordering::Relaxed) > 0 {
        let now = Instant::now();
        let mut followed = FOLLOWED.write().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|(_, until)| *until > now);
        LEASES.store(followed.len(), Ordering::Relaxed);
    }
}

/// Whether somebody follows this client. One relaxed load while nobody follows anybody.
pub fn follows(client: IpAddr) -> bool {
    if LEASES.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let client = client.to_canonical();
    let followed = FOLLOWED.read().unwrap_or_else(PoisonError::into_inner);
    followed.iter().any(|(network, _)| network.contains(&client))
}

/// Lines of a followed client, each on its own. A command's secret is not shown.
pub fn tell(session: u64, client: IpAddr, speaker: Speaker, lines: &[u8]) {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        let text = if speaker == Speaker::Client { without_secret(&text) } else { text.into_owned() };
        LINES.push(|number| TraceLine {
            number,
            at_ms: u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX),
            session,
            client: client.to_canonical(),
            speaker,
            text: bounded(&text, TEXT_MAX),
        });
    }
}

/// Lines of clients in this network with higher numbers than `after`.
pub fn since(network: IpNet, after: u64, limit: usize) -> Vec<TraceLine> {
    let lines = LINES.since(after, usize::MAX).into_iter().filter(|line| network.contains(&line.client));
    lines.take(limit).collect()
}

/// The number of the last line of all.
pub fn last() -> u64 {
    LINES.last()
}

/// AUTH shows its mechanism, and that there is more (RFC 4954 section 4: the rest is a secret).
fn without_secret(command: &str) -> String {
    let mut words = command.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(verb), Some(mechanism), Some(_)) if verb.eq_ignore_ascii_case("AUTH") => {
            format!("{verb} {mechanism} (not shown)")
        }
        _ => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (command, shown) in [
            ("AUTH PLAIN dGVzdA==", "AUTH PLAIN (not shown)"),
            ("auth  login  dXNlcg==", "auth login (not shown)"),
            ("AUTH LOGIN", "AUTH LOGIN"),
            ("MAIL FROM:<a@b.example> AUTH=<>", "MAIL FROM:<a@b.example> AUTH=<>"),
        ] {
            assert_eq!(without_secret(command), shown);
        }
    }

    #[test]
    fn only_who_is_followed_is_told_of() {
        let network: IpNet = "203.0.113.128/25".parse().unwrap();
        let (inside, outside) = ("203.0.113.200".parse().unwrap(), "203.0.113.1".parse().unwrap());
        assert!(!follows(inside));
        assert!(follow(network));
        assert!(follows(inside) && !follows(outside));
        tell(1, inside, Speaker::Gateway, b"250-one\r\n250 two\x1b[2J\r\n");
        tell(2, outside, Speaker::Gateway, b"250 other\r\n");
        let lines: Vec<_> = since(network, 0, 10).into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["250-one", "250 two\\u{1b}[2J"]);
    }
}
