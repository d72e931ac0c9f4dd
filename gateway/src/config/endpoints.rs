//! `[[listener]]` and `[[backend]]`: each for itself, names that resolve, and nothing twice. What else must hold between them
//! is `between`'s.

mod between;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::{backend_address, listen_address, network};
use super::diagnostics::{Report, Span, quoted};
use super::read::{Complaint, Located, Read, Section};
use super::suggest::nearest;
use super::values::{choice, text, word};
use super::{Backend, HostPort, IdentityMode, Listener};

const NAME_MAX: usize = 63;

/// `backend.kind`: mail servers whose mend the relay proof knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the servers' own")]
pub enum ServerKind {
    Postfix,
    Exim,
    Exchange,
    OpenSmtpd,
    Sendmail,
    Haraka,
    Dovecot,
    /// This program's own sink.
    Sink,
}

const KINDS: [(&str, ServerKind); 8] = [
    ("postfix", ServerKind::Postfix),
    ("exim", ServerKind::Exim),
    ("exchange", ServerKind::Exchange),
    ("opensmtpd", ServerKind::OpenSmtpd),
    ("sendmail", ServerKind::Sendmail),
    ("haraka", ServerKind::Haraka),
    ("dovecot", ServerKind::Dovecot),
    ("sink", ServerKind::Sink),
];

/// A `[[listener]]` whose backend is still a name.
pub(super) struct ReadListener {
    address: Option<Located<SocketAddr>>,
    backend: Option<Located<String>>,
    proxy_protocol_from: Vec<IpNet>,
}

/// A `[[backend]]`.
pub(super) struct ReadBackend {
    name: Located<String>,
    address: Option<Located<HostPort>>,
    identity: Option<Located<IdentityMode>>,
    kind: Option<ServerKind>,
}

pub(super) fn listener(mut section: Section<'_, '_, '_>) -> ReadListener {
    let address = section.required("address", "\"0.0.0.0:25\"", listen_address);
    let backend = section.optional("backend", |value| text(value, "backend").map(str::to_owned));
    let proxy_protocol_from = load_balancers(&mut section);
    section.optional("tls", |value| no_tls(value, &["starttls", "implicit"]));
    section.optional("service", service);
    section.finish();
    ReadListener { address, backend, proxy_protocol_from }
}

/// The networks that must send a PROXY header. To name none, or everybody, is to let the header be forged.
fn load_balancers(section: &mut Section<'_, '_, '_>) -> Vec<IpNet> {
    let key = "proxy_protocol_from";
    let Some(networks) = section.list(key, network) else { return Vec::new() };
    let path = section.path(key);
    let is_empty = section.value(key).and_then(|value| value.get_ref().as_array()).is_some_and(|list| list.is_empty());
    if is_empty {
        let help = "write the load balancers' addresses, such as `[\"10.0.0.5/32\"]`, or delete the key if clients \
                    connect directly";
        section.report().fault(&networks.span, format!("{path} is empty: nobody could connect"), help);
    }
    for Located { value, span } in &networks.value {
        if value.prefix_len() == 0 {
            let message = format!("{path} names `{value}`: every client could claim any address");
            section.report().fault(span, message, "name only the load balancers, such as `\"10.0.0.5/32\"`");
        }
    }
    networks.value.into_iter().map(|network| network.value).collect()
}

fn service(value: &DeValue<'_>) -> Read<()> {
    match text(value, "mx")? {
        "mx" => Ok(()),
        "submission" => Err(Complaint::new(
            "is `submission`, which this version does not serve yet",
            "write `\"mx\"`, and let mail programs submit to the mail server itself",
        )),
        other => Err(Complaint::new(format!("cannot be {}", quoted(other)), "write `\"mx\"`")),
    }
}

fn no_tls(value: &DeValue<'_>, to_come: &[&str]) -> Read<()> {
    let help = "write `\"off\"`, or delete the key";
    match text(value, "off")? {
        "off" => Ok(()),
        word if to_come.contains(&word) => {
            Err(Complaint::new(format!("is `{word}`, but this version has no TLS yet"), help))
        }
        other => Err(Complaint::new(format!("cannot be {}", quoted(other)), help)),
    }
}

/// `index` counts from 0.
pub(super) fn backend(mut section: Section<'_, '_, '_>, index: usize) -> ReadBackend {
    let default = Located { value: default_name(index), span: section.header().unwrap_or_default() };
    let name = section.optional("name", backend_name).unwrap_or(default);
    let address = section.required("address", "\"192.0.2.25:25\"", backend_address);
    let identity = match section.value("identity") {
        Some(_) => section.optional("identity", word(&IdentityMode::ALL.map(|mode| (mode.as_str(), mode)))),
        None => Some(Located { value: IdentityMode::Xclient, span: 0..0 }),
    };
    let kind = section.optional("kind", word(&KINDS)).map(|kind| kind.value);
    section.optional("tls", |value| no_tls(value, &["opportunistic", "required", "implicit"]));
    section.finish();
    ReadBackend { name, address, identity, kind }
}

fn default_name(index: usize) -> String {
    if index == 0 { "backend".to_owned() } else { format!("backend-{}", index + 1) }
}

fn backend_name(value: &DeValue<'_>) -> Read<String> {
    let name = text(value, "exchange")?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > NAME_MAX || !is_plain {
        let message = format!("is {}, which is no name for a backend", quoted(name));
        let help = format!("write at most {NAME_MAX} letters, digits, hyphens, underscores and dots");
        return Err(Complaint::new(message, help));
    }
    Ok(name.to_owned())
}

/// Puts both together. What is faulty is reported and left out.
pub(super) fn join(
    listeners: Vec<ReadListener>,
    backends: Vec<ReadBackend>,
    names_domains: bool,
    report: &mut Report<'_>,
) -> (Vec<Listener>, Vec<Backend>) {
    if listeners.is_empty() {
        let help = "write `[[listener]]`, and under it `address = \"0.0.0.0:25\"`";
        report.missing(("", "listener"), None, "there is no `[[listener]]`", help);
    }
    if backends.is_empty() {
        let help = "write `[[backend]]`, and under it the mail server's `address = \"192.0.2.25:25\"`";
        report.missing(("", "backend"), None, "there is no `[[backend]]`", help);
    }
    let indices = backend_indices(&backends, report);
    between::check(&listeners, &backends, &indices, names_domains, report);
    let listeners = resolve(listeners, &indices, report);
    let backends = backends.into_iter().filter_map(|ReadBackend { name, address, identity, kind }| {
        Some(Backend { name: name.value, address: address?.value, identity: identity?.value, kind })
    });
    (listeners, backends.collect())
}

fn backend_indices(backends: &[ReadBackend], report: &mut Report<'_>) -> HashMap<String, usize> {
    let mut indices = HashMap::new();
    for (index, ReadBackend { name, .. }) in backends.iter().enumerate() {
        if indices.contains_key(&name.value) {
            let message = format!("there are two backends named `{}`", name.value);
            report.fault(&name.span, message, "give each `[[backend]]` a `name` of its own");
        } else {
            indices.insert(name.value.clone(), index);
        }
    }
    indices
}

fn resolve(listeners: Vec<ReadListener>, indices: &HashMap<String, usize>, report: &mut Report<'_>) -> Vec<Listener> {
    let mut seen = HashSet::new();
    let mut resolved = Vec::new();
    for ReadListener { address, backend, proxy_protocol_from } in listeners {
        let index = match &backend {
            None => 0,
            Some(Located { value, span }) => indices.get(value).copied().unwrap_or_else(|| {
                unknown_backend(value, span, indices, report);
                0
            }),
        };
        let Some(Located { value: address, span }) = address else { continue };
        if !seen.insert(address) {
            let help = "delete one of the two, or give it another address or port";
            report.fault(&span, format!("there are two listeners on `{address}`"), help);
        }
        resolved.push(Listener { address, backend: index, proxy_protocol_from });
    }
    resolved
}

fn unknown_backend(name: &str, span: &Span, indices: &HashMap<String, usize>, report: &mut Report<'_>) {
    let mut names: Vec<_> = indices.keys().map(String::as_str).collect();
    names.sort_unstable();
    let help = match nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None if names.is_empty() => "write a `[[backend]]` with this `name`".to_owned(),
        None => format!("write {}, or give a `[[backend]]` this `name`", choice(&names)),
    };
    report.misfit(span, format!("`listener.backend` is {}, and there is no such backend", quoted(name)), help);
}
