//! What the gateway itself refuses, by cause: counted always, told in the log and the events at a bounded rate.
//!
//! A flood of refused connections must not become a flood of lines: of each cause only the first few sources a minute get
//! a line of their own, each one, and the rest is summed up when the minute is over.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use tracing::{info, warn};

use super::declare::{Label, label};
use super::events::{self, EventKind};

/// Sources of one cause that get a line of their own in one minute.
const LINES_MAX: usize = 10;
/// Sources that are remembered for what does not fit.
const MISFITS_MAX: usize = 256;
/// Of those, how many are shown.
const MISFITS_SHOWN: usize = 10;
/// How long, in minutes.
const MISFITS_MINUTES: u64 = 60;

label! {
    /// Why the gateway refused something.
    RefusalCause {
        /// The source is banned.
        Banned = "ban",
        /// `limits.sessions` is reached.
        Sessions = "sessions-limit",
        /// A limit of one client's sessions is reached.
        SessionsPerClient = "client-limit",
        /// A listed load balancer's PROXY header cannot be read, or did not come whole in time.
        ProxyHeader = "proxy-header",
        /// A listed load balancer began with something else.
        NoProxyHeader = "no-proxy-header",
        /// A PROXY header came on a listener that takes none.
        UnexpectedProxyHeader = "unexpected-proxy-header",
        /// A connection to a listener for load balancers came from none of them.
        UnlistedBalancer = "unlisted-balancer",
        /// The client talked before it was asked.
        EarlyTalk = "early-talk",
        /// A recipient that the relay guard does not let through.
        Relay = "relay",
        /// The client cannot do TLS as it is asked for.
        Tls = "tls",
        /// Too many refused commands, or too many that send no mail.
        Errors = "errors",
        /// Too many refused passwords.
        Logins = "logins",
        /// More data than any limit allows.
        Flood = "flood",
        /// A deadline or the minimum rate was missed.
        Timeout = "timeout",
    }
}

impl RefusalCause {
    /// What to write, or to do, if the client should have been served; `None` where the client alone can mend it.
    pub fn mend(self) -> Option<&'static str> {
        match self {
            Self::Sessions => Some("raise `limits.sessions`, or see with `smtp-gateway top` who takes the places"),
            Self::SessionsPerClient => {
                Some("if this is a host of your own with much mail, raise `limits.sessions_per_client`")
            }
            Self::ProxyHeader => Some(
                "have the load balancer send the PROXY protocol of version 1 or 2, as its specification has it (HAProxy: \
                 `send-proxy-v2`)",
            ),
            Self::NoProxyHeader => Some(
                "have the load balancer send a PROXY header (HAProxy: `send-proxy-v2`, nginx: `proxy_protocol on`, AWS: \
                 `proxy_protocol_v2.enabled` of the target group), or take it out of `proxy_protocol_from`",
            ),
            Self::UnexpectedProxyHeader => Some(
                "if this is a load balancer of yours, list it in the listener's `proxy_protocol_from`, or have it send no PROXY \
                 header",
            ),
            Self::UnlistedBalancer => Some(
                "if this is a load balancer, add it to the listener's `proxy_protocol_from`; if it is a client, have it come \
                 through one",
            ),
            Self::Banned => Some("`smtp-gateway bans` says why; `smtp-gateway unban` lets it in"),
            Self::EarlyTalk | Self::Relay | Self::Tls | Self::Errors | Self::Logins | Self::Flood | Self::Timeout => {
                None
            }
        }
    }
}

impl RefusalCause {
    /// Whether it is about how things are set up, and no client's doing: what an administrator must hear of.
    fn is_of_the_setup(self) -> bool {
        use RefusalCause::{NoProxyHeader, ProxyHeader, Sessions, UnexpectedProxyHeader, UnlistedBalancer};
        matches!(self, Sessions | ProxyHeader | NoProxyHeader | UnexpectedProxyHeader | UnlistedBalancer)
    }

    /// What the source did, for a sentence that begins with its address.
    fn words(self) -> Option<&'static str> {
        match self {
            Self::ProxyHeader => Some("sends PROXY headers that cannot be read"),
            Self::NoProxyHeader => Some("is in `proxy_protocol_from`, and sends no PROXY header"),
            Self::UnexpectedProxyHeader => Some("sends PROXY headers to a listener without `proxy_protocol_from`"),
            Self::UnlistedBalancer => Some("connects to a listener for load balancers, and is none that it lists"),
            _ => None,
        }
    }
}

/// Who was refused for the way things are set up, how often, and when last, in minutes since the start.
#[derive(Debug, Default)]
struct Misfits(Mutex<HashMap<(RefusalCause, IpAddr), (u64, u64)>>);

impl Misfits {
    fn note(&self, cause: RefusalCause, source: IpAddr, minute: u64) {
        let mut misfits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if misfits.len() >= MISFITS_MAX && !misfits.contains_key(&(cause, source)) {
            // Many strangers are no misfit of one: the longest unheard of goes.
            let oldest = misfits.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| *key);
            oldest.map(|oldest| misfits.remove(&oldest));
        }
        let (count, last) = misfits.entry((cause, source)).or_default();
        *count += 1;
        *last = minute;
    }

    fn sentences(&self, minute: u64) -> Vec<String> {
        let mut misfits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        misfits.retain(|_, (_, last)| minute.saturating_sub(*last) <= MISFITS_MINUTES);
        let mut rows: Vec<_> = misfits.iter().map(|((cause, source), (count, _))| (*count, *source, *cause)).collect();
        rows.sort_unstable_by_key(|(count, source, cause)| (Reverse(*count), *source, cause.index()));
        let sentence = |(count, source, cause): (u64, IpAddr, RefusalCause)| {
            let mend = cause.mend().unwrap_or_default();
            cause.words().map(|words| format!("{source} {words} ({count} times in the last hour or more): {mend}"))
        };
        rows.into_iter().filter_map(sentence).take(MISFITS_SHOWN).collect()
    }
}

/// What was told in the current minute.
#[derive(Debug, Default)]
struct Told {
    minute: u64,
    sources: HashSet<(RefusalCause, IpAddr)>,
    lines: [usize; RefusalCause::ALL.len()],
}

/// Bounds how much is told.
#[derive(Debug)]
struct Limiter {
    told: Mutex<Told>,
    /// Of each cause, what got no line since the last sum.
    untold: [AtomicU64; RefusalCause::ALL.len()],
}

/// When each cause was last met, in seconds since [`START`], and one more; 0 for never.
static LAST: [AtomicU64; RefusalCause::ALL.len()] = [const { AtomicU64::new(0) }; RefusalCause::ALL.len()];
static LIMITER: LazyLock<Limiter> = LazyLock::new(Limiter::new);
static MISFITS: LazyLock<Misfits> = LazyLock::new(Misfits::default);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Limiter {
    fn new() -> Self {
        Self { told: Mutex::default(), untold: Default::default() }
    }

    /// Whether this one gets a line. Nobody waits for another: who finds the book in use is counted, and not told.
    fn admits(&self, cause: RefusalCause, source: IpAddr, minute: u64) -> bool {
        if let Ok(mut told) = self.told.try_lock() {
            if told.minute != minute {
                *told = Told { minute, ..Told::default() };
            }
            if told.sources.contains(&(cause, source)) {
                // It has its line.
                return false;
            }
            if told.lines[cause.index()] < LINES_MAX {
                told.lines[cause.index()] += 1;
                told.sources.insert((cause, source));
                return true;
            }
        }
        self.untold[cause.index()].fetch_add(1, Ordering::Relaxed);
        false
    }
}

/// What is refused for the way things are set up, a sentence each, with what to write; forgotten after an hour.
pub fn misfits() -> Vec<String> {
    MISFITS.sentences(START.elapsed().as_secs() / 60)
}

/// Tells of a refusal in the log and the events, unless enough was told of its kind this minute.
pub fn tell(cause: RefusalCause, source: IpAddr) {
    let seconds = START.elapsed().as_secs();
    LAST[cause.index()].store(seconds + 1, Ordering::Relaxed);
    if cause.words().is_some() {
        MISFITS.note(cause, source.to_canonical(), seconds / 60);
    }
    if !LIMITER.admits(cause, source.to_canonical(), seconds / 60) {
        return;
    }
    let why = cause.as_str();
    events::emit(EventKind::Refusal, source.to_canonical(), why);
    match cause {
        cause if cause.is_of_the_setup() => warn!(cause = why, %source, mend = cause.mend(), "refused"),
        _ => info!(cause = why, %source, mend = cause.mend(), "refused"),
    }
}

/// Whether something was refused for this cause within the last so many seconds.
pub fn is_recent(cause: RefusalCause, seconds: u64) -> bool {
    match LAST[cause.index()].load(Ordering::Relaxed) {
        0 => false,
        last => (START.elapsed().as_secs() + 1).saturating_sub(last) <= seconds,
    }
}

/// One line for each cause of which more happened than was told. To be called about once a minute.
pub fn sum_up() {
    for cause in RefusalCause::ALL {
        let count = LIMITER.untold[cause.index()].swap(0, Ordering::Relaxed);
        if count > 0 {
            info!(cause = cause.as_str(), count, "more were refused");
        }
    }
    // What was told is not kept longer than it is of use.
    let minute = START.elapsed().as_secs() / 60;
    let mut told = LIMITER.told.lock().unwrap_or_else(PoisonError::into_inner);
    if told.minute != minute {
        *told = Told { minute, ..Told::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn each_source_gets_one_line_a_minute_and_a_flood_gets_few() {
        let limiter = Limiter::new();
        let admitted = |cause, last, minute| limiter.admits(cause, address(last), minute);
        assert!(admitted(RefusalCause::Banned, 1, 0));
        assert!(!admitted(RefusalCause::Banned, 1, 0));
        assert!(admitted(RefusalCause::Relay, 1, 0));
        let told = (2..=200).filter(|last| admitted(RefusalCause::Banned, *last, 0)).count();
        assert_eq!(told, LINES_MAX - 1);
        let untold = limiter.untold[RefusalCause::Banned.index()].load(Ordering::Relaxed);
        assert_eq!(untold, 199 - (LINES_MAX as u64 - 1));
        assert!(admitted(RefusalCause::Banned, 1, 1));
    }

    #[test]
    fn what_does_not_fit_is_remembered_for_an_hour_and_is_not_much() {
        let misfits = Misfits::default();
        for _ in 0..3 {
            misfits.note(RefusalCause::UnexpectedProxyHeader, address(5), 7);
        }
        misfits.note(RefusalCause::NoProxyHeader, address(6), 9);
        let sentences = misfits.sentences(60);
        assert_eq!(sentences.len(), 2);
        assert!(sentences[0].starts_with("192.0.2.5 sends PROXY headers to a listener without"), "{sentences:?}");
        assert!(sentences[0].contains("3 times") && sentences[0].contains("`proxy_protocol_from`"), "{sentences:?}");
        for number in 0..10_000_u32 {
            misfits.note(RefusalCause::UnlistedBalancer, std::net::Ipv4Addr::from_bits(number).into(), 68);
        }
        assert_eq!(misfits.0.lock().unwrap().len(), MISFITS_MAX);
        assert_eq!(misfits.sentences(68).len(), MISFITS_SHOWN);
        assert_eq!(misfits.sentences(200), Vec::<String>::new());
    }
}
