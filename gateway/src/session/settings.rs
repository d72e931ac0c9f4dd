//! What a session needs of the configuration and of the backend's learned dialect.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{
    self, Backend, BackendTls, BareNewline, Config, EarlyTalk, IdentityMode, Limits, Service, Timeouts,
};
use crate::policy::header::Keeps;
use crate::policy::relay_guard::RelayGuard;
use crate::route::Routes;
use crate::smtp::auth::Mechanisms;
use crate::smtp::body::{BareNewlineRule, BodyRules};
use crate::smtp::domains::DomainSet;
use crate::smtp::ehlo::{Extensions, Keywords, Offer};
use crate::smtp::reply::encode_reply;

/// One backend, as far as a session must know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    /// How it is told who the client is.
    pub(super) identity: IdentityMode,
    /// Whether XCLIENT says who has logged in.
    pub(super) xclient_login: bool,
    /// Whether the connection to it is encrypted.
    pub(super) tls: BackendTls,
    /// Whether passwords may go to it all the same where it is not.
    pub(super) clear_text_auth: bool,
    /// Whether it has several servers, of which another may do what one does not.
    pub(super) has_several: bool,
}

impl Target {
    fn new(config: &Config, pool: usize) -> Self {
        let servers = &config.backends[config.pools[pool].servers.clone()];
        // What is read of it here, all servers of a pool have in common.
        let Backend { identity, xclient_login, tls, clear_text_auth, .. } = servers[0];
        Self {
            identity,
            xclient_login: xclient_login && identity.is_xclient(),
            tls,
            // Whoever writes `off` has decided.
            clear_text_auth: clear_text_auth || tls == BackendTls::Off,
            has_several: servers.len() > 1,
        }
    }
}

/// The configuration of one listener's sessions, shared by all of them.
#[derive(Debug)]
pub struct Settings {
    /// The gateway's name.
    pub hostname: Box<str>,
    /// The greeting, encoded.
    pub(super) greeting: Box<[u8]>,
    /// The backends that it leads to, the listener's own first.
    pub(super) targets: Box<[Target]>,
    /// Which of them a recipient's mail goes to, where there are several.
    pub(super) routes: Option<Routes>,
    /// Which of them a user's mail goes to, where there are several and users send.
    pub(super) user_routes: Option<Routes>,
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
    /// What holds where users send; `None` where other mail servers do.
    pub(super) submission: Option<Submission>,
}

/// What holds at a submission listener.
#[derive(Debug)]
pub(super) struct Submission {
    /// Whether clients of `relay.allowed_networks` may send without AUTH.
    pub(super) relay_without_auth: bool,
    /// Domains that may stand in MAIL FROM; `None` for all.
    pub(super) senders: Option<DomainSet>,
    /// Clients that may log in without TLS.
    pub(super) clear_text_networks: Box<[IpNet]>,
}

impl Submission {
    fn new(submission: &config::Submission, relay_without_auth: bool) -> Self {
        let mut senders = DomainSet::new();
        for domain in &submission.senders {
            // The configuration was checked.
            let _ = senders.insert(domain);
        }
        Self {
            relay_without_auth,
            senders: (!submission.senders.is_empty()).then_some(senders),
            clear_text_networks: submission.clear_text_networks.as_slice().into(),
        }
    }
}

/// The limits where users send.
fn submission_limits(limits: &Limits, submission: &config::Submission) -> Limits {
    Limits {
        message_size: submission.message_size.unwrap_or(limits.message_size),
        recipients: submission.recipients.unwrap_or(limits.recipients),
        ..limits.clone()
    }
}

impl Settings {
    /// For the listener with this index in `config`.
    pub fn new(config: &Config, listener: usize, record_messages: bool) -> Self {
        let routes = Routes::new(config, listener);
        let targets = routes.pools().iter().map(|pool| Target::new(config, *pool)).collect();
        let routes = Some(routes).filter(|routes| routes.pools().len() > 1);
        let (user_routes, routes) = match routes {
            Some(routes) if routes.are_by_user() => (Some(routes), None),
            routes => (None, routes),
        };
        Self { user_routes, ..Self::of(config, listener, targets, routes, record_messages) }
    }

    /// For sessions of this listener in which every route leads to this one server: those of the relay proof. Where users send,
    /// who has not logged in takes none.
    pub fn toward(config: &Config, listener: usize, server: usize) -> Self {
        let target = Target { has_several: false, ..Target::new(config, config.backends[server].pool) };
        let routes = Some(Routes::new(config, listener)).filter(|it| it.pools().len() > 1 && !it.are_by_user());
        let places = routes.as_ref().map_or(1, |routes| routes.pools().len());
        Self::of(config, listener, vec![target; places].into(), routes, false)
    }

    /// How many backends it leads to.
    pub fn places(&self) -> usize {
        self.targets.len()
    }

    fn of(
        config: &Config,
        listener: usize,
        targets: Box<[Target]>,
        routes: Option<Routes>,
        record_messages: bool,
    ) -> Self {
        let listener = &config.listeners[listener];
        let (limits, submission) = match listener.service {
            Service::Mx => (config.limits.clone(), None),
            Service::Submission => (
                submission_limits(&config.limits, &config.submission),
                Some(Submission::new(&config.submission, listener.relay_without_auth)),
            ),
        };
        Self {
            hostname: config.server.hostname.as_str().into(),
            greeting: format!("220 {} ESMTP\r\n", config.server.hostname).into_bytes().into(),
            targets,
            routes,
            user_routes: None,
            timeouts: config.timeouts.clone(),
            relay: RelayGuard::new(&config.relay),
            early_talk: config.server.early_talk,
            body_rules: BodyRules {
                line_max: limits.text_line,
                bare_newline: match config.server.bare_newline {
                    BareNewline::Reject => BareNewlineRule::Reject,
                    BareNewline::Normalize => BareNewlineRule::Normalize,
                },
            },
            limits,
            asks_recipients: false,
            record_messages,
            submission,
        }
    }
}

impl Settings {
    /// What is offered of what the backends offer, and beside it (RFC 9422): recipients in several domains may part, and users
    /// must say who they are before a backend can ask for anything.
    pub fn dialect(&self, common: Arc<Dialect>) -> Arc<Dialect> {
        if self.routes.as_ref().is_some_and(Routes::are_by_domain) {
            let mx = common.mx.saying("LIMITS RCPTDOMAINMAX=1");
            return Arc::new(Dialect { mx, ..(*common).clone() });
        }
        if self.user_routes.is_some() {
            return Arc::new(Dialect { mechanisms: common.mechanisms.client_first(), ..(*common).clone() });
        }
        common
    }

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

/// The largest message, in bytes, where other servers and where users send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    mx: u64,
    submission: u64,
}

impl Sizes {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        let mx = config.limits.message_size;
        Self { mx, submission: config.submission.message_size.unwrap_or(mx) }
    }
}

/// What was learned of a backend, and what clients are therefore told.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Extensions a client may use.
    pub(super) offered: Extensions,
    /// Extensions the backend was seen to offer; `None` while nothing was learned.
    pub(super) learned: Option<Extensions>,
    /// It was learned over TLS, from whom we want.
    pub(super) verified: bool,
    /// What other mail servers are told.
    pub(super) mx: Told,
    /// What users are told.
    pub(super) users: Told,
    /// What a user may log in by.
    pub(super) mechanisms: Mechanisms,
}

/// What the clients of one service are told.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Largest message a client may announce, in bytes; 0 for no limit.
    pub(super) size_max: u64,
    /// The reply to a client's EHLO, encoded; STARTTLS and AUTH are each client's own.
    pub(super) ehlo_reply: Box<[u8]>,
}

impl Dialect {
    /// Nothing was learned yet: clients are told of PIPELINING only, which the gateway can do alone.
    pub fn unknown(hostname: &str) -> Self {
        let mut ehlo_reply = Vec::new();
        Keywords::default().encode_for_client(hostname, ALLOWED, 0, &mut ehlo_reply);
        let mx = Told { size_max: 0, ehlo_reply: ehlo_reply.into() };
        let users = mx.clone();
        Self {
            offered: Extensions::PIPELINING,
            learned: None,
            verified: false,
            mx,
            users,
            mechanisms: Mechanisms::empty(),
        }
    }

    /// From a backend's EHLO reply as [`Offer`] and [`Keywords`]. `verified`: it came over TLS, from whom we want.
    pub fn new(hostname: &str, sizes: Sizes, offer: &Offer, keywords: &Keywords, verified: bool) -> Self {
        let mut allowed = ALLOWED;
        // A long chunk is passed on in parts, one behind the other.
        if !offer.extensions.contains(Extensions::PIPELINING) {
            allowed -= Extensions::CHUNKING | Extensions::BINARYMIME;
        }
        let told = |limit| {
            let size_max = match offer.size_max {
                Some(0) | None => limit,
                Some(size) => size.min(limit),
            };
            let mut ehlo_reply = Vec::new();
            keywords.encode_for_client(hostname, allowed, limit, &mut ehlo_reply);
            Told { size_max, ehlo_reply: ehlo_reply.into() }
        };
        let (mx, users) = (told(sizes.mx), told(sizes.submission));
        if verified {
            allowed |= Extensions::REQUIRETLS;
        }
        let learned = offer.extensions.intersection(allowed);
        let offered = learned.union(Extensions::PIPELINING);
        Self { offered, learned: Some(learned), verified, mx, users, mechanisms: offer.mechanisms.relayable() }
    }
}

impl Dialect {
    /// What all of these have in common; of those only that nothing is known of, the first. There must be one.
    pub fn common(parts: &[Arc<Self>]) -> Arc<Self> {
        let mut learned = parts.iter().filter(|part| part.is_learned());
        let Some(first) = learned.next() else { return parts[0].clone() };
        learned.fold(first.clone(), |common, part| if *common == **part { common } else { Arc::new(common.with(part)) })
    }

    /// What both offer, in this one's order.
    fn with(&self, other: &Self) -> Self {
        Self {
            offered: self.offered.intersection(other.offered),
            learned: self.learned.zip(other.learned).map(|(one, other)| one.intersection(other)),
            verified: self.verified && other.verified,
            mx: self.mx.with(&other.mx),
            users: self.users.with(&other.users),
            mechanisms: self.mechanisms.intersection(other.mechanisms),
        }
    }

    /// Whether it is known what the backend offers.
    pub fn is_learned(&self) -> bool {
        self.learned.is_some()
    }

    /// Whether commands may be sent to the backend before it has answered the last.
    pub(super) fn pipelines(&self) -> bool {
        self.learned.is_some_and(|learned| learned.contains(Extensions::PIPELINING))
    }
}

impl Told {
    /// What both are told, in this one's order.
    fn with(&self, other: &Self) -> Self {
        let size_max = match (self.size_max, other.size_max) {
            (0, size) | (size, 0) => size,
            (one, other) => one.min(other),
        };
        let theirs: Vec<_> = other.lines().collect();
        let is_theirs = |line: &&str| theirs.iter().any(|their| keyword(their) == keyword(line));
        let mut lines: Vec<_> = self.lines().take(1).map(str::to_owned).collect();
        lines.extend(self.lines().skip(1).filter(is_theirs).map(|line| match line {
            line if keyword(line) != "SIZE" => line.to_owned(),
            _ if size_max == 0 => "SIZE".to_owned(),
            _ => format!("SIZE {size_max}"),
        }));
        let mut ehlo_reply = Vec::new();
        encode_reply(250, None, &lines.join("\n"), &mut ehlo_reply);
        Self { size_max, ehlo_reply: ehlo_reply.into() }
    }

    /// The same with one keyword more.
    fn saying(&self, line: &str) -> Self {
        let lines: Vec<_> = self.lines().chain([line]).collect();
        let mut ehlo_reply = Vec::new();
        encode_reply(250, None, &lines.join("\n"), &mut ehlo_reply);
        Self { ehlo_reply: ehlo_reply.into(), ..self.clone() }
    }

    /// The lines of the reply, without their codes.
    fn lines(&self) -> impl Iterator<Item = &str> {
        let text = std::str::from_utf8(&self.ehlo_reply).unwrap_or_default();
        text.lines().filter_map(|line| line.get(4..))
    }
}

fn keyword(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialect").field("ehlo_reply", &String::from_utf8_lossy(&self.mx.ehlo_reply)).finish()
    }
}
