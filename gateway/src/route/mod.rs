//! Routes: who sends what to whom goes in, and comes out as one of the backends that a listener leads to.
//!
//! The first route of the configuration whose every condition holds decides; if none does, the listener's own backend gets the
//! mail. Recipients are looked up by hash, each form that a route may have written them in once, so ten thousand routes cost
//! what ten cost. The room knows nothing of sessions, and whether a backend can be reached is none of its business.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::{Config, Route, Service, recipient_keys};
use crate::smtp::address::{Domain, ForwardPath, Mailbox, ReversePath};
use crate::smtp::domains::Membership;

/// The routes of one listener.
#[derive(Debug, Clone)]
pub struct Routes {
    /// Those for this listener, in the configuration's order.
    routes: Vec<Rule>,
    /// By what recipients may be written as; each list in order.
    by_recipient: HashMap<Box<str>, Vec<usize>>,
    /// Whether one of them is for a single mailbox.
    has_mailboxes: bool,
    /// Those that any recipient fits.
    of_everybody: Vec<usize>,
    /// Indices into `Config::pools`; the listener's own is the first.
    pools: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Rule {
    route: Route,
    /// Among the configuration's routes.
    index: usize,
    /// Among `Routes::pools`.
    place: usize,
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
}

impl Routes {
    /// For the listener with this index.
    pub fn new(config: &Config, listener: usize) -> Self {
        let mut pools = vec![config.listeners[listener].backend];
        let mut routes = Vec::new();
        let (mut by_recipient, mut of_everybody) = (HashMap::<Box<str>, Vec<usize>>::new(), Vec::new());
        // Users' mail goes to the server that they have logged in to.
        let is_mx = config.listeners[listener].service == Service::Mx;
        let is_own = |route: &&Route| is_mx && (route.listeners.is_empty() || route.listeners.contains(&listener));
        for (index, route) in config.routes.iter().enumerate().filter(|(_, route)| is_own(route)) {
            let place = pools.iter().position(|pool| *pool == route.backend).unwrap_or_else(|| {
                pools.push(route.backend);
                pools.len() - 1
            });
            if route.recipients.is_empty() {
                of_everybody.push(routes.len());
            }
            for recipient in &route.recipients {
                by_recipient.entry(recipient.as_str().into()).or_default().push(routes.len());
            }
            routes.push(Rule { route: route.clone(), index, place });
        }
        let has_mailboxes = by_recipient.keys().any(|key| key.contains('@'));
        Self { routes, by_recipient, has_mailboxes, of_everybody, pools }
    }

    /// The backends that the listener leads to, as indices into `Config::pools`; its own is the first.
    pub fn pools(&self) -> &[usize] {
        &self.pools
    }

    /// Whether recipients in different domains may part.
    pub fn are_by_domain(&self) -> bool {
        !self.by_recipient.is_empty()
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
        let fits = |at: &&usize| self.routes[**at].fits(envelope);
        let mut first = self.of_everybody.iter().find(fits).copied();
        if let (ForwardPath::Mailbox(mailbox), false) = (envelope.recipient, self.by_recipient.is_empty()) {
            recipient_keys(mailbox, self.has_mailboxes, |key| {
                let found = self.by_recipient.get(key).and_then(|list| list.iter().find(fits)).copied();
                first = match (first, found) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            });
        }
        first.map_or(Decision { place: 0, route: None }, |at| {
            let Rule { index, place, .. } = self.routes[at];
            Decision { place, route: Some(index) }
        })
    }
}

impl Rule {
    /// Whether everything but the recipient is as it asks.
    fn fits(&self, envelope: &Envelope<'_>) -> bool {
        let Route { clients, senders, .. } = &self.route;
        let is_sender =
            || envelope.sender.is_some_and(|sender| senders.contains(&Domain::Name(sender)) == Membership::Local);
        (clients.is_empty() || clients.iter().any(|network| network.contains(&envelope.client)))
            && (senders.is_empty() || is_sender())
    }
}

#[cfg(test)]
mod tests;
