//! Routes: who sends what to whom goes in, and comes out as one of the backends that a listener leads to.
//!
//! The first route of the configuration whose every condition holds decides; if none does, the listener's own backend gets the
//! mail. Where other mail servers send, that goes by the recipient; where users send, by who has logged in, for all that he
//! sends. Recipients and users are looked up by hash, each form that a route may have written them in once, so ten thousand
//! routes cost what ten cost. The room knows nothing of sessions, and whether a backend can be reached is none of its business.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use ipnet::IpNet;

use crate::config::{Config, KeyForms, ROUTES_MAX, Route, Service, recipient_keys, user_keys};
use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::domains::{DomainSet, Membership};

/// The routes of one listener.
#[derive(Debug, Clone)]
pub struct Routes {
    /// Those for this listener, in the configuration's order.
    rules: Vec<Rule>,
    /// By what recipients or users may be written as; each list in order. What strangers write is looked up here and never put
    /// in, so they can bring about no collisions beyond those that there are, and the hash need only be a fast one; it is keyed
    /// all the same.
    by_key: HashMap<Box<str>, Vec<Target>, RandomState>,
    /// What of them there is.
    forms: KeyForms,
    /// Those that anybody fits.
    of_everybody: Vec<Target>,
    /// Indices into `Config::pools`; the listener's own is the first.
    pools: Vec<usize>,
    /// Whether users decide, and not recipients.
    by_user: bool,
}

/// A route's other conditions.
#[derive(Debug, Clone)]
struct Rule {
    /// Among the configuration's routes.
    index: usize,
    clients: Box<[IpNet]>,
    senders: DomainSet,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// Among `Routes::rules`.
    rule: usize,
    /// Among `Routes::pools`.
    place: usize,
    /// Of the route's file, if it has one.
    line: usize,
}

/// What decides.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Who sends.
    pub client: IpAddr,
    /// The domain of the reverse-path, if it has one by name.
    pub sender: Option<&'a str>,
    /// To whom.
    pub recipient: &'a ForwardPath<'a>,
}

/// A text that is no mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no mail address; write `user@example.com`")]
pub struct NoAddress(String);

/// Where mail goes, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Among [`Routes::pools`].
    pub place: usize,
    /// Among the configuration's routes; `None` for the listener's own backend.
    pub route: Option<usize>,
    /// The line of the route's file, if it has one.
    pub line: usize,
}

/// Which route a session or a message took, in two octets; or that none was taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteId(u16);

impl RouteId {
    /// None was taken yet, or there is nothing to choose.
    pub const NONE: Self = Self(0);
    /// No route fitted: the listener's own backend.
    pub const OWN: Self = Self(1);

    /// Its place in a list that begins with the listener's own backend and has the configuration's routes behind it.
    pub fn place(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

impl Decision {
    /// Which route it is.
    pub fn id(&self) -> RouteId {
        const { assert!(ROUTES_MAX < u16::MAX as usize - 1) };
        let id = self.route.and_then(|index| u16::try_from(index + 2).ok());
        id.map_or(RouteId::OWN, RouteId)
    }
}

impl Routes {
    /// For the listener with this index.
    pub fn new(config: &Config, listener: usize) -> Self {
        let by_user = config.listeners[listener].service == Service::Submission;
        let mut routes = Self {
            rules: Vec::new(),
            by_key: HashMap::default(),
            forms: KeyForms { mailboxes: false, suffixes: false },
            of_everybody: Vec::new(),
            pools: vec![config.listeners[listener].backend],
            by_user,
        };
        let is_own = |route: &&Route| {
            by_user != route.users.is_empty() && (route.listeners.is_empty() || route.listeners.contains(&listener))
        };
        for (index, route) in config.routes.iter().enumerate().filter(|(_, route)| is_own(route)) {
            routes.add(index, route);
        }
        // Who logs in by a bare name is looked up in any case.
        routes.forms = KeyForms {
            mailboxes: routes.by_key.keys().any(|key| key.contains('@')),
            suffixes: routes.by_key.keys().any(|key| key.starts_with('.')),
        };
        routes
    }

    fn add(&mut self, index: usize, route: &Route) {
        let rule = self.rules.len();
        let Route { clients, senders, .. } = route;
        self.rules.push(Rule { index, clients: clients.as_slice().into(), senders: senders.clone() });
        if route.keys().is_empty() {
            let place = self.place_of(route.backend);
            self.of_everybody.push(Target { rule, place, line: 0 });
        }
        for key in route.keys() {
            let target = Target { rule, place: self.place_of(key.backend), line: key.line };
            self.by_key.entry(key.text.as_str().into()).or_default().push(target);
        }
    }

    fn place_of(&mut self, pool: usize) -> usize {
        self.pools.iter().position(|known| *known == pool).unwrap_or_else(|| {
            self.pools.push(pool);
            self.pools.len() - 1
        })
    }

    /// The backends that the listener leads to, as indices into `Config::pools`; its own is the first.
    pub fn pools(&self) -> &[usize] {
        &self.pools
    }

    /// Whether recipients in different domains may part.
    pub fn are_by_domain(&self) -> bool {
        !self.by_user && !self.by_key.is_empty()
    }

    /// Whether users decide, and not recipients.
    pub fn are_by_user(&self) -> bool {
        self.by_user
    }

    /// Where mail goes for this recipient, from this sender (none for mail without), both as text.
    ///
    /// # Errors
    /// One of the two is no address.
    pub fn decide_text(&self, client: IpAddr, sender: &str, recipient: &str) -> Result<Decision, NoAddress> {
        let (from, to) = (format!("<{sender}>"), format!("<{recipient}>"));
        let sender = match ReversePath::parse(&from) {
            Some((ReversePath::Mailbox(Mailbox { domain: Domain::Name(name), .. }), "")) => Some(name),
            Some((_, "")) => None,
            _ => return Err(NoAddress(sender.to_owned())),
        };
        match ForwardPath::parse(&to) {
            Some((recipient, "")) => Ok(self.decide(&Envelope { client, sender, recipient: &recipient })),
            _ => Err(NoAddress(recipient.to_owned())),
        }
    }

    /// Where this goes.
    pub fn decide(&self, envelope: &Envelope<'_>) -> Decision {
        let Envelope { client, sender, recipient } = *envelope;
        let mut choice = self.choice(client, sender);
        if let (ForwardPath::Mailbox(mailbox), false) = (recipient, self.by_key.is_empty()) {
            recipient_keys(mailbox, self.forms, |key| choice.look_up(key));
        }
        choice.decision()
    }

    /// Where all goes that this user sends; `None` for who has not logged in.
    pub fn decide_user(&self, client: IpAddr, name: Option<&str>) -> Decision {
        let mut choice = self.choice(client, None);
        if let Some(name) = name {
            user_keys(name, self.forms, |key| choice.look_up(key));
        }
        choice.decision()
    }

    fn choice<'a>(&'a self, client: IpAddr, sender: Option<&'a str>) -> Choice<'a> {
        let mut choice = Choice { routes: self, client, sender, first: None };
        choice.consider(&self.of_everybody);
        choice
    }
}

/// The first route that fits, of those that were looked at.
struct Choice<'a> {
    routes: &'a Routes,
    client: IpAddr,
    sender: Option<&'a str>,
    first: Option<Target>,
}

impl Choice<'_> {
    fn look_up(&mut self, key: &str) {
        if let Some(targets) = self.routes.by_key.get(key) {
            self.consider(targets);
        }
    }

    fn consider(&mut self, targets: &[Target]) {
        let fits = |target: &&Target| self.routes.rules[target.rule].fits(self.client, self.sender);
        if let Some(found) = targets.iter().find(fits)
            && self.first.is_none_or(|first| found.rule < first.rule)
        {
            self.first = Some(*found);
        }
    }

    fn decision(self) -> Decision {
        self.first.map_or(Decision { place: 0, route: None, line: 0 }, |Target { rule, place, line }| Decision {
            place,
            route: Some(self.routes.rules[rule].index),
            line,
        })
    }
}

impl Rule {
    /// Whether everything but the recipient or user is as it asks.
    fn fits(&self, client: IpAddr, sender: Option<&str>) -> bool {
        let Self { clients, senders, .. } = self;
        let is_sender = || sender.is_some_and(|sender| senders.contains(&Domain::Name(sender)) == Membership::Local);
        (clients.is_empty() || clients.iter().any(|network| network.contains(&client)))
            && (senders.is_empty() || is_sender())
    }
}

#[cfg(test)]
mod tests;
