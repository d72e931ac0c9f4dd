//! What a session needs of the configuration and of the backend's learned dialect.

use std::fmt;

use crate::config::{BackendTls, BareNewline, Config, EarlyTalk, IdentityMode, Limits, Timeouts};
use crate::policy::header::Keeps;
use crate::policy::relay_guard::RelayGuard;
use crate::smtp::body::{BareNewlineRule, BodyRules};
use crate::smtp::ehlo::{Extensions, Keywords, Offer};

/// The configuration of one listener's sessions, shared by all of them.
#[derive(Debug)]
pub struct Settings {
    /// The gateway's name.
    pub hostname: Box<str>,
    /// The greeting, encoded.
    pub(super) greeting: Box<[u8]>,
    /// How the backend is told who the client is.
    pub identity: IdentityMode,
    /// Whether the connection to the backend is encrypted.
    pub backend_tls: BackendTls,
    /// Limits.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Who may send where.
    pub relay: RelayGuard,
    /// What a client that talks too early gets.
    pub early_talk: EarlyTalk,
    /// What may be in a message that is text.
    pub body_rules: BodyRules,
    /// Whether each recipient that may pass is asked about first ([`Question::Recipient`](super::Question::Recipient)).
    pub asks_recipients: bool,
    /// Whether envelopes are kept for the log.
    pub record_messages: bool,
}

impl Settings {
    /// For the listener with this index in `config`.
    pub fn new(config: &Config, listener: usize, record_messages: bool) -> Self {
        let backend = &config.backends[config.listeners[listener].backend];
        Self {
            hostname: config.server.hostname.as_str().into(),
            greeting: format!("220 {} ESMTP\r\n", config.server.hostname).into_bytes().into(),
            identity: backend.identity,
            backend_tls: backend.tls,
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            relay: RelayGuard::new(&config.relay),
            early_talk: config.server.early_talk,
            body_rules: BodyRules {
                line_max: config.limits.text_line,
                bare_newline: match config.server.bare_newline {
                    BareNewline::Reject => BareNewlineRule::Reject,
                    BareNewline::Normalize => BareNewlineRule::Normalize,
                },
            },
            asks_recipients: false,
            record_messages,
        }
    }
}

impl Settings {
    /// What of a message's header is kept.
    pub(super) fn header_keeps(&self) -> Keeps {
        if self.record_messages { Keeps::Names } else { Keeps::Nothing }
    }
}

/// Extensions that the gateway can parse, and so may offer when the backend does.
const ALLOWED: Extensions = Extensions::PIPELINING
    .union(Extensions::SIZE)
    .union(Extensions::EIGHT_BIT_MIME)
    .union(Extensions::SMTPUTF8)
    .union(Extensions::DSN)
    .union(Extensions::ENHANCED_STATUS_CODES)
    .union(Extensions::CHUNKING)
    .union(Extensions::BINARYMIME);

/// What was learned of a backend, and what clients are therefore told.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Extensions a client may use.
    pub(super) offered: Extensions,
    /// Extensions the backend was seen to offer; `None` while nothing was learned.
    pub(super) learned: Option<Extensions>,
    /// Largest message a client may announce, in bytes; 0 for no limit.
    pub(super) size_max: u64,
    /// The reply to a client's EHLO, encoded.
    pub(super) ehlo_reply: Box<[u8]>,
}

impl Dialect {
    /// Nothing was learned yet: clients are told of PIPELINING only, which the gateway can do alone.
    pub fn unknown(hostname: &str) -> Self {
        let mut ehlo_reply = Vec::new();
        Keywords::default().encode_for_client(hostname, ALLOWED, 0, &mut ehlo_reply);
        Self { offered: Extensions::PIPELINING, learned: None, size_max: 0, ehlo_reply: ehlo_reply.into() }
    }

    /// From a backend's EHLO reply as [`Offer`] and [`Keywords`]. `verified`: it came over TLS, from whom we want.
    pub fn new(hostname: &str, limits: &Limits, offer: &Offer, keywords: &Keywords, verified: bool) -> Self {
        let size_max = match offer.size_max {
            Some(0) | None => limits.message_size,
            Some(size) => size.min(limits.message_size),
        };
        let mut ehlo_reply = Vec::new();
        keywords.encode_for_client(hostname, ALLOWED, limits.message_size, &mut ehlo_reply);
        let allowed = if verified { ALLOWED.union(Extensions::REQUIRETLS) } else { ALLOWED };
        let learned = offer.extensions.intersection(allowed);
        let offered = learned.union(Extensions::PIPELINING);
        Self { offered, learned: Some(learned), size_max, ehlo_reply: ehlo_reply.into() }
    }
}

impl Dialect {
    /// Whether commands may be sent to the backend before it has answered the last.
    pub(super) fn pipelines(&self) -> bool {
        self.learned.is_some_and(|learned| learned.contains(Extensions::PIPELINING))
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect").field("ehlo_reply", &String::from_utf8_lossy(&self.ehlo_reply)).finish()
    }
}
