//! `[[route]]`: mail that goes to another backend than its listener's.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::{listen_address, network};
use super::declare::{Each, table};
use super::diagnostics::{Report, Span, quoted};
use super::endpoints::Listener;
use super::read::{Complaint, Located, Read, Section};
use super::suggest::nearest;
use super::values::{choice, text};
use crate::smtp::address::{Domain, ForwardPath, Mailbox, parse_literal};
use crate::smtp::domains::DomainSet;
use crate::smtp::labels::a_labels;

table! {
    /// `[[route]]`: all that it names must hold, of each list one.
    pub struct Route {
        /// Domains, `.suffix` entries and mailboxes, as [`recipient_keys`] writes them; none for all.
        recipients: Vec<String> = Vec::new(), Each(recipient);
        /// Where clients come from; none for everywhere.
        clients: Vec<IpNet> = Vec::new(), Each(network);
    } and {
        /// The sender's domain; none for all, also for mail without a sender.
        senders: DomainSet = DomainSet::new();
        /// Indices into `Config::listeners`; none for all.
        listeners: Vec<usize> = Vec::new();
        /// Index into `Config::pools`.
        backend: usize = 0;
        /// The line of the file where it begins.
        line: Line = Line(0);
    }
}

/// A line of the file. Where something stands is no part of what is configured: all lines are equal.
#[derive(Debug, Clone, Copy)]
pub struct Line(pub usize);

impl PartialEq for Line {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A `[[route]]` whose backend and listeners are still names. What is `None` is faulty, or not there.
pub(super) struct ReadRoute {
    route: Route,
    recipients: Vec<Located<String>>,
    backend: Option<Located<String>>,
    listeners: Vec<Located<SocketAddr>>,
    place: Span,
}

pub(super) fn route(mut section: Section<'_, '_, '_>) -> ReadRoute {
    let mut route = Route::read(&mut section);
    let place = section.header().unwrap_or_default();
    route.line = Line(section.report().place(&place).line);
    section.list("senders", domain);
    for Located { value, .. } in section.elements("senders", domain) {
        // It is a domain, or would not have been read.
        let _ = route.senders.insert(&value);
    }
    section.list("listeners", listen_address);
    let listeners = section.elements("listeners", listen_address);
    let backend = section.required("backend", "\"backend\"", |value| text(value, "backend").map(str::to_owned));
    let recipients = section.elements("recipients", recipient);
    section.finish();
    ReadRoute { route, recipients, backend, listeners, place }
}

/// Resolves names, and reports routes that nothing comes to.
pub(super) fn join(
    read: Vec<ReadRoute>,
    listeners: &[Listener],
    pools: &HashMap<String, usize>,
    report: &mut Report<'_>,
) -> Vec<Route> {
    let mut taken = Taken::default();
    let mut routes = Vec::new();
    for ReadRoute { mut route, recipients, backend, listeners: wanted, place } in read {
        for Located { value: address, span } in wanted {
            match listeners.iter().position(|listener| listener.address == address) {
                Some(index) => route.listeners.push(index),
                None => {
                    let message = format!("`route.listeners` names `{address}`, and there is no such listener");
                    report.misfit(&span, message, "write the `address` of a `[[listener]]`, as it stands there");
                }
            }
        }
        if let Some(Located { value: name, span }) = backend {
            match pools.get(&name) {
                Some(index) => route.backend = *index,
                None => unknown_backend(&name, &span, pools, report),
            }
        }
        taken.check(&route, &recipients, &place, report);
        routes.push(route);
    }
    routes
}

fn unknown_backend(name: &str, span: &Span, pools: &HashMap<String, usize>, report: &mut Report<'_>) {
    let mut names: Vec<_> = pools.keys().map(String::as_str).collect();
    names.sort_unstable();
    let help = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None => format!("write {}, or give a `[[backend]]` this `name`", choice(&names)),
    };
    report.misfit(span, format!("`route.backend` is {}, and there is no such backend", quoted(name)), help);
}

/// What earlier routes take whole, so that nothing of it comes to a later one.
#[derive(Default)]
struct Taken {
    recipients: HashMap<String, usize>,
    /// The line of a route that takes everything.
    everything: Option<usize>,
}

impl Taken {
    fn check(&mut self, route: &Route, recipients: &[Located<String>], place: &Span, report: &mut Report<'_>) {
        let help = "delete the one of the two that is not meant, or put this one before the other: the first that fits decides";
        if let Some(line) = self.everything {
            let message = format!("nothing comes to this route: the one in line {line} takes all mail");
            return report.fault(place, message, help);
        }
        let is_whole = route.clients.is_empty() && route.senders.is_empty() && route.listeners.is_empty();
        if is_whole && route.recipients.is_empty() {
            self.everything = Some(route.line.0);
        }
        let mut own = HashSet::new();
        for Located { value, span } in recipients {
            let line = covering(value).into_iter().find_map(|key| self.recipients.get(&key).copied());
            if let Some(line) = line {
                let message = format!("no mail for `{value}` comes to this route: the one in line {line} takes it");
                report.fault(span, message, help);
            } else if !own.insert(value) {
                report.fault(span, format!("`{value}` stands twice in this route"), "delete one of the two");
            }
        }
        if is_whole {
            for recipient in &route.recipients {
                self.recipients.entry(recipient.clone()).or_insert(route.line.0);
            }
        }
    }
}

/// Every key that takes all that this one does.
fn covering(key: &str) -> Vec<String> {
    let mut keys = vec![key.to_owned()];
    let domain = key.rsplit_once('@').map_or(key, |(_, domain)| domain);
    if domain != key {
        keys.push(domain.to_owned());
    }
    let name = domain.strip_prefix('.').unwrap_or(domain);
    keys.extend(name.match_indices('.').map(|(at, _)| name[at..].to_owned()));
    keys
}

/// Calls `each` with every form in which a route may name this recipient: the mailbox if any route `has_mailboxes`, its
/// domain, each `.suffix` of that.
/// Letters are compared without case.
pub fn recipient_keys(mailbox: &Mailbox<'_>, has_mailboxes: bool, mut each: impl FnMut(&str)) {
    match mailbox.domain {
        Domain::Name(name) => {
            let Some(name) = a_labels(name) else { return };
            if has_mailboxes {
                each(&format!("{}@{name}", mailbox.local_part.to_lowercase()));
            }
            each(&name);
            for (at, _) in name.match_indices('.') {
                each(&name[at..]);
            }
        }
        Domain::Literal(address) => each(&format!("[{}]", address.to_canonical())),
        Domain::GeneralLiteral(_) => {}
    }
}

/// A domain, `.suffix` or mailbox, as [`recipient_keys`] writes it.
fn recipient(value: &DeValue<'_>) -> Read<String> {
    let entry = text(value, "example.com")?;
    let complaint = || {
        Complaint::new(
            format!("is {}, which is no recipient", quoted(entry)),
            "write `example.com`, `.example.com` for all its subdomains, `[192.0.2.1]`, or a mailbox `user@example.com`",
        )
    };
    if !entry.contains('@') {
        return domain_key(entry).ok_or_else(complaint);
    }
    let path = format!("<{entry}>");
    let Some((ForwardPath::Mailbox(mailbox), "")) = ForwardPath::parse(&path) else { return Err(complaint()) };
    let mut key = None;
    recipient_keys(&mailbox, true, |form| {
        key.get_or_insert_with(|| form.to_owned());
    });
    key.filter(|key| key.contains('@')).ok_or_else(complaint)
}

fn domain(value: &DeValue<'_>) -> Read<String> {
    let entry = text(value, "example.com")?;
    domain_key(entry).ok_or_else(|| {
        Complaint::new(
            format!("is {}, which is no domain", quoted(entry)),
            "write `example.com`, or `.example.com` for all its subdomains",
        )
    })
}

fn domain_key(entry: &str) -> Option<String> {
    DomainSet::new().insert(entry).ok()?;
    if let Some(content) = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let Some(Domain::Literal(address)) = parse_literal(content) else { return None };
        return Some(format!("[{}]", address.to_canonical()));
    }
    match entry.strip_prefix('.') {
        Some(suffix) => a_labels(suffix).map(|name| format!(".{name}")),
        None => a_labels(entry).map(|name| name.into_owned()),
    }
}
