//! How a `[[route]]` is read, and joined with the backends and listeners that it names.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use super::addresses::listen_address;
use super::diagnostics::{Report, Span, quoted};
use super::endpoints::{Listener, Service};
use super::pool::default_name;
use super::read::{Located, Section};
use super::route::{Line, ROUTES_MAX, Route, RouteKey};
use super::route_file::{RouteFile, unknown_backend_help};
use super::route_keys::{domain, recipient, user};
use super::shadowed::{Left, SHADOWED_HELP, Taken};
use super::values::text;

/// What mail is shown under that no route fits.
pub const NO_ROUTE: &str = "none";

/// A `[[route]]` whose backend and listeners are still names. What is `None` is faulty, or not there.
pub(super) struct ReadRoute {
    route: Route,
    /// Recipients or users that stand in the configuration.
    keys: Vec<Located<String>>,
    file: Option<RouteFile>,
    backend: Option<Located<String>>,
    listeners: Vec<Located<SocketAddr>>,
    place: Span,
    name_place: Span,
}

impl ReadRoute {
    /// Whether it says of domains that they are local.
    pub(super) fn is_local(&self) -> bool {
        self.route.local
    }
}

/// `index` counts from 0, and `directory` is where the configuration lies.
pub(super) fn route(mut section: Section<'_, '_, '_>, index: usize, directory: &Path) -> ReadRoute {
    let mut route = Route::read(&mut section);
    let place = section.header().unwrap_or_default();
    let name_place = match section.locate("name", ()) {
        Some(name) => {
            if route.name == NO_ROUTE {
                let message =
                    format!("`route.name` is `{NO_ROUTE}`, which is what mail is shown under that no route fits");
                section.report().fault(&name.span, message, "give the route another name");
            }
            name.span
        }
        None => {
            route.name = default_name("route", index);
            place.clone()
        }
    };
    route.line = Line(section.report().place(&place).line);
    section.list("senders", domain);
    for Located { value, .. } in section.elements("senders", domain) {
        // It is a domain, or would not have been read.
        let _ = route.senders.insert(&value);
    }
    section.list("listeners", listen_address);
    let listeners = section.elements("listeners", listen_address);
    let file_place = section.locate("file", ()).map(|file| file.span);
    let read_name = |value: &toml::de::DeValue<'_>| text(value, "backend").map(str::to_owned);
    let backend = match &file_place {
        Some(_) => section.optional("backend", read_name),
        None => section.required("backend", "\"backend\"", read_name),
    };
    section.list("recipients", recipient);
    section.list("users", user);
    let (mut keys, users) = (section.elements("recipients", recipient), section.elements("users", user));
    let names = |section: &mut Section<'_, '_, '_>, key| section.value(key).is_some();
    let fault = |section: &mut Section<'_, '_, '_>, key, message: &str, help: &str| {
        if let Some(Located { span, .. }) = section.locate(key, ()) {
            section.report().fault(&span, message, help);
        }
    };
    if names(&mut section, "users") {
        let other = ["recipients", "senders", "file"].into_iter().find(|key| names(&mut section, key));
        if let Some(key) = other {
            let message = format!("`route.users` and `route.{key}` are both given, and a user's mail all goes one way");
            fault(&mut section, "users", &message, &format!("delete `{key}`, or make two routes of this one"));
        }
        if users.is_empty() {
            fault(&mut section, "users", "`route.users` names nobody", "name users, or delete the key");
        }
        keys = users;
        route.users = placeless(&keys);
    } else {
        route.recipients = placeless(&keys);
    }
    if names(&mut section, "recipients") && file_place.is_some() {
        let help = "write the recipients into the file, or make two routes of this one";
        fault(&mut section, "file", "`route.recipients` and `route.file` are both given", help);
    }
    check_local(&mut section, &route, &keys);
    let file = route.file.take().and_then(|path| {
        let path = directory.join(path);
        let file = RouteFile::read(&path, &file_place.unwrap_or_default(), section.report());
        route.file = Some(path);
        file
    });
    section.finish();
    ReadRoute { route, keys, file, backend, listeners, place, name_place }
}

/// Of everybody's mail for a local domain, the route must take all: what it left would be let in and go elsewhere.
fn check_local(section: &mut Section<'_, '_, '_>, route: &Route, keys: &[Located<String>]) {
    let Some(Located { span, .. }) = section.locate("local", ()).filter(|_| route.local) else { return };
    let others = ["clients", "senders", "listeners", "users"];
    if let Some(key) = others.into_iter().find(|key| section.value(key).is_some()) {
        let message = format!("`route.local` is true beside `{key}`: other mail for these domains would go elsewhere");
        let help = format!("delete `{key}`, or write the domains in `relay.local_domains` and delete `local`");
        section.report().fault(&span, message, help);
    } else if route.file.is_none() && keys.is_empty() {
        let help = "name the domains in `recipients`, or delete `local`";
        section.report().fault(&span, "`route.local` is true, and the route names no domain", help);
    }
    for Located { value, span } in keys.iter().filter(|key| key.value.contains('@')) {
        section.report().fault(span, format!("`{value}` is a mailbox, and only a domain can be local"), MAILBOX_HELP);
    }
}

const MAILBOX_HELP: &str = "give mailboxes a route of their own, without `local`, before this one";

fn placeless(keys: &[Located<String>]) -> Vec<RouteKey> {
    keys.iter().map(|key| RouteKey { text: key.value.clone(), backend: 0, line: 0 }).collect()
}

/// Resolves names, and reports routes that nothing comes to.
pub(super) fn join(
    read: Vec<ReadRoute>,
    listeners: &[Listener],
    pools: &HashMap<String, usize>,
    report: &mut Report<'_>,
) -> Vec<Route> {
    let mut taken = Taken::default();
    let mut names = HashSet::new();
    let mut routes = Vec::new();
    for ReadRoute { mut route, keys, file, backend, listeners: wanted, place, name_place } in read {
        if routes.len() == ROUTES_MAX {
            let message = format!("there are more than {ROUTES_MAX} routes");
            report.fault(&place, message, "write recipients into the `file` of one route, each with its backend");
            break;
        }
        if !names.insert(route.name.clone()) {
            let message = format!("there are two routes named `{}`", route.name);
            report.fault(&name_place, message, "give each `[[route]]` a `name` of its own");
        }
        route.listeners = resolve_listeners(&route, wanted, listeners, report);
        let known = backend.and_then(|Located { value: name, span }| {
            let index = pools.get(&name).copied();
            if index.is_none() {
                let message = format!("`route.backend` is {}, and there is no such backend", quoted(&name));
                report.misfit(&span, message, unknown_backend_help(&name, pools));
            }
            index
        });
        route.backend = known.unwrap_or(0);
        for key in route.recipients.iter_mut().chain(&mut route.users) {
            key.backend = route.backend;
        }
        let source = file.as_ref().map(RouteFile::source);
        let mut places = Vec::new();
        if let (Some(file), Some(source)) = (&file, &source) {
            (route.recipients, places) = file.keys(source, known, pools, report).into_iter().unzip();
            if route.recipients.is_empty() {
                // It would take everybody's mail.
                let message = format!("the route's file {} names no recipient", quoted(file.name()));
                report.fault(&place, message, "write a recipient and its backend a line, or delete the route");
            }
            for (key, at) in
                route.recipients.iter().zip(&places).filter(|(key, _)| route.local && key.text.contains('@'))
            {
                let message = format!("`{}` is a mailbox, and only a domain can be local", key.text);
                report.elsewhere(source, at, message, MAILBOX_HELP.to_owned());
            }
        }
        match taken.take(&route) {
            Left::Nothing(message) => report.fault(&place, message, SHADOWED_HELP),
            Left::AllBut(shadows) => {
                for (index, message) in shadows {
                    match (&source, places.get(index), keys.get(index)) {
                        (Some(source), Some(span), _) => {
                            report.elsewhere(source, span, message, SHADOWED_HELP.to_owned())
                        }
                        (None, _, Some(Located { span, .. })) => report.fault(span, message, SHADOWED_HELP),
                        _ => {}
                    }
                }
            }
        }
        routes.push(route);
    }
    routes
}

fn resolve_listeners(
    route: &Route,
    wanted: Vec<Located<SocketAddr>>,
    listeners: &[Listener],
    report: &mut Report<'_>,
) -> Vec<usize> {
    let mut resolved = Vec::new();
    for Located { value: address, span } in wanted {
        let Some(index) = listeners.iter().position(|listener| listener.address == address) else {
            let message = format!("`route.listeners` names `{address}`, and there is no such listener");
            report.misfit(&span, message, "write the `address` of a `[[listener]]`, as it stands there");
            continue;
        };
        if (listeners[index].service == Service::Submission) == route.users.is_empty() {
            let (message, help) = if route.users.is_empty() {
                ("where users send, and users' mail goes by who they are", "name `users`, or another listener")
            } else {
                ("where nobody logs in", "name a listener with `service = \"submission\"`, or delete `users`")
            };
            report.misfit(&span, format!("`route.listeners` names `{address}`, {message}"), help);
        }
        resolved.push(index);
    }
    resolved
}
