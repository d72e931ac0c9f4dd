//! `[[backend]]`: one mail server by `address`, or several that stand for one another by `servers`, or whichever DNS names by
//! `srv`. Until it was asked, those of the last kind are one server that cannot be reached.
//!
//! Each server becomes a [`Backend`] of its own, as everything that is learned of a server is its own: health, what it
//! offers, what the relay proof found. What holds them together is their [`Pool`].

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::addresses::{HostPort, SMTP_PORT, backend_address, srv_name};
use super::diagnostics::{Span, quoted};
use super::endpoints::{Backend, IdentityMode, backend_name, check_tls};
use super::read::{Complaint, Located, Read, Section, kind_of};
use super::tls::{own_certificate, place_of};
use super::values::integer;

/// Servers of one backend.
pub const SERVERS_MAX: usize = 32;
const ADDRESS: &str = "\"192.0.2.25:25\"";
const SERVER: &str = "write an address such as `\"192.0.2.25:25\"`, or `{ address = \"192.0.2.25:25\", weight = 2 }`";

/// One `[[backend]]`: the servers that stand for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: String,
    /// Its servers among `Config::backends`; at least one.
    pub servers: Range<usize>,
    /// The SRV records that name them (RFC 2782).
    pub srv: Option<String>,
}

/// One server. What is `None` is faulty, or not there.
pub(super) struct ReadBackend {
    pub(super) backend: Backend,
    pub(super) address: Option<Located<HostPort>>,
    pub(super) identity: Option<Located<IdentityMode>>,
}

/// A `[[backend]]`.
pub(super) struct ReadPool {
    pub(super) name: String,
    /// Where its name stands, or else its table.
    pub(super) place: Span,
    /// At least one.
    pub(super) servers: Vec<ReadBackend>,
    /// What stands for all of them.
    pub(super) srv: Option<String>,
}

/// An element of `servers`.
struct Server {
    address: HostPort,
    name: Option<String>,
    weight: u32,
    priority: u32,
    max_sessions: Option<u32>,
}

/// `index` counts from 0.
pub(super) fn backend(mut section: Section<'_, '_, '_>, index: usize, directory: &Path) -> ReadPool {
    let mut backend = Backend::read(&mut section);
    let place = match section.locate("name", ()) {
        Some(name) => name.span,
        None => {
            backend.name = default_name("backend", index);
            section.header().unwrap_or_default()
        }
    };
    backend.tls_ca = backend.tls_ca.map(|path| directory.join(path));
    backend.tls_certificate = own_certificate(&mut section, directory);
    backend.tls_place = place_of(&mut section, "tls");
    backend.tls_ca_place = place_of(&mut section, "tls_ca");
    check_tls(&mut section, &backend);
    let identity = section.locate("identity", backend.identity);
    let (servers, srv) = match section.value("srv") {
        None => (servers(&mut section, &backend), None),
        Some(_) => by_srv(&mut section, &backend),
    };
    let nameless = servers.iter().find(|read| read.address.is_some() && read.backend.lacks_name());
    if nameless.is_some()
        && let Some(Located { span, .. }) = section.locate("tls", ())
    {
        let help = "write the name in its certificate, `tls_name = \"mail.example.com\"`, or `tls_verify = \"pin\"`";
        let message = "the backend's certificate is to be checked, and `address` has no name for it";
        section.report().fault(&span, message, help);
    }
    section.finish();
    let with_identity = |read| ReadBackend { identity: identity.clone(), ..read };
    ReadPool { name: backend.name, place, servers: servers.into_iter().map(with_identity).collect(), srv }
}

/// By `srv`, which says it alone.
fn by_srv(section: &mut Section<'_, '_, '_>, backend: &Backend) -> (Vec<ReadBackend>, Option<String>) {
    for key in ["address", "servers"] {
        if let Some(span) = section.value(key).map(Spanned::span) {
            let message = format!("`backend.{key}` and `backend.srv` are both given");
            section.report().fault(&span, message, "delete one of the two: SRV records name all servers");
        }
    }
    let srv = section.optional("srv", srv_name);
    let address = srv.clone().map(|srv| Located { value: HostPort::Name(srv.value, SMTP_PORT), span: srv.span });
    (vec![one(backend, backend.name.clone(), address)], srv.map(|srv| srv.value))
}

/// By `servers`, or else by `address`.
fn servers(section: &mut Section<'_, '_, '_>, backend: &Backend) -> Vec<ReadBackend> {
    let list = section.list("servers", server);
    if list.is_none() && section.value("servers").is_none() {
        let address = section.required("address", ADDRESS, backend_address);
        return vec![one(backend, backend.name.clone(), address)];
    }
    if section.optional("address", backend_address).is_some()
        && let Some(Located { span, .. }) = section.locate("address", ())
    {
        let help = "write the address as an element of `servers`, and delete `address`";
        section.report().fault(&span, "`backend.address` and `backend.servers` are both given", help);
    }
    let servers = section.elements("servers", server);
    let is_empty =
        section.value("servers").is_some_and(|value| value.get_ref().as_array().is_some_and(|list| list.is_empty()));
    if let Some(Located { span, .. }) = &list
        && (is_empty || servers.len() > SERVERS_MAX)
    {
        let message = format!("`backend.servers` names {} servers, and may name 1 to {SERVERS_MAX}", servers.len());
        section.report().fault(span, message, SERVER);
    }
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    let mut read = Vec::new();
    for (index, Located { value: server, span }) in servers.into_iter().enumerate() {
        let name = server.name.unwrap_or_else(|| (index + 1).to_string());
        if !addresses.insert(server.address.to_string()) {
            let message = format!("`backend.servers` names `{}` twice", server.address);
            section.report().fault(&span, message, "delete one of the two; `weight` gives a server more sessions");
        }
        if !names.insert(name.clone()) {
            let message = format!("`backend.servers` has two servers named `{name}`");
            section.report().fault(&span, message, "give each a `name` of its own");
        }
        let address = Some(Located { value: server.address, span });
        let mut server_read = one(backend, format!("{}/{name}", backend.name), address);
        server_read.backend.weight = server.weight;
        server_read.backend.priority = server.priority;
        server_read.backend.max_sessions = server.max_sessions.unwrap_or(backend.max_sessions);
        read.push(server_read);
    }
    if read.is_empty() {
        // Faulty, which was reported.
        read.push(one(backend, backend.name.clone(), None));
    }
    read
}

fn one(backend: &Backend, name: String, address: Option<Located<HostPort>>) -> ReadBackend {
    let mut backend = Backend { name, ..backend.clone() };
    if let Some(address) = &address {
        backend.address = address.value.clone();
    }
    ReadBackend { backend, address, identity: None }
}

fn server(value: &DeValue<'_>) -> Read<Server> {
    if value.as_str().is_some() {
        let address = backend_address(value)?;
        return Ok(Server { address, name: None, weight: 1, priority: 1, max_sessions: None });
    }
    let Some(table) = value.as_table() else {
        return Err(Complaint::new(format!("must be an address, or keys in braces, not {}", kind_of(value)), SERVER));
    };
    const KEYS: [&str; 5] = ["address", "name", "weight", "priority", "max_sessions"];
    if let Some(key) = table.iter().map(|(key, _)| key.get_ref().as_ref()).find(|key| !KEYS.contains(key)) {
        return Err(Complaint::new(
            format!("has no key {}", quoted(key)),
            format!("known here: {}", KEYS.map(|key| format!("`{key}`")).join(", ")),
        ));
    }
    let within = |key: &str, complaint: Complaint| Complaint {
        message: format!("has a `{key}` that {}", complaint.message),
        ..complaint
    };
    let number = |key: &str, most: u32| {
        let value = table.get(key).map(|value| integer(u32::from(key != "max_sessions")..=most)(value.get_ref()));
        value.transpose().map_err(|complaint| within(key, complaint))
    };
    let Some(address) = table.get("address") else { return Err(Complaint::new("has no `address`", SERVER)) };
    let name = table.get("name").map(|value| backend_name(value.get_ref())).transpose();
    Ok(Server {
        address: backend_address(address.get_ref()).map_err(|complaint| within("address", complaint))?,
        name: name.map_err(|complaint| within("name", complaint))?,
        weight: number("weight", 100)?.unwrap_or(1),
        priority: number("priority", 9)?.unwrap_or(1),
        max_sessions: number("max_sessions", 1_000_000)?,
    })
}

/// Of a table that has no name, by its index from 0.
pub(super) fn default_name(what: &str, index: usize) -> String {
    if index == 0 { what.to_owned() } else { format!("{what}-{}", index + 1) }
}
