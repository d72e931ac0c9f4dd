//! `[[listener]]` and `[[backend]]`: each for itself, names that resolve, and nothing twice. What else must hold between them
//! is `between`'s.

mod between;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::{backend_address, listen_address, network};
use super::declare::{Each, Maybe, Required, table, words};
use super::diagnostics::{Report, Span, quoted};
use super::read::{Complaint, Located, Read, Section};
use super::suggest::nearest;
use super::values::{choice, text, word};

const NAME_MAX: usize = 63;
/// Goes on in place of a faulty address.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

table! {
    /// `[[listener]]`
    pub struct Listener {
        /// Where it listens.
        address: SocketAddr = NOWHERE, Required("\"0.0.0.0:25\"", listen_address);
        /// If not empty, a PROXY header is required, and only from these.
        proxy_protocol_from: Vec<IpNet> = Vec::new(), Each(network);
    } and {
        /// Index into `Config::backends`; the key is the backend's name, the default the first backend.
        backend: usize = 0;
    }
}

table! {
    /// `[[backend]]`
    pub struct Backend {
        /// Its name in `status` and logs; unique.
        name: String = String::new(), backend_name;
        /// Where it listens.
        address: HostPort = HostPort::Address(NOWHERE), Required("\"192.0.2.25:25\"", backend_address);
        /// How it is told who the client is.
        identity: IdentityMode = IdentityMode::Xclient, word;
        /// What it is, where it should not be guessed from its greeting.
        kind: Option<ServerKind> = None, Maybe(word);
    }
}

/// `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPort {
    /// An address.
    Address(SocketAddr),
    /// A name to resolve, all its addresses tried in turn.
    Name(String, u16),
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

words! {
    /// `backend.identity`
    pub enum IdentityMode {
        /// XCLIENT after EHLO.
        Xclient = "xclient",
        /// PROXY protocol version 1.
        ProxyV1 = "proxy-v1",
        /// PROXY protocol version 2.
        ProxyV2 = "proxy-v2",
        /// The connection comes from the client's own address.
        Transparent = "transparent",
        /// A `Received:` field above the message; only allowed while the relay guard has local domains.
        TraceHeader = "trace-header",
        /// Nothing: only allowed while the relay guard has local domains.
        None = "none",
    }
}

impl IdentityMode {
    /// Whether the backend can decide by who the client is. If not, it takes every client for the gateway.
    pub fn tells(self) -> bool {
        !matches!(self, Self::TraceHeader | Self::None)
    }
}

words! {
    /// `backend.kind`: mail servers whose mend the relay proof knows.
    #[expect(missing_docs, reason = "the names are the servers' own")]
    pub enum ServerKind {
        Postfix = "postfix",
        Exim = "exim",
        Exchange = "exchange",
        OpenSmtpd = "opensmtpd",
        Sendmail = "sendmail",
        Haraka = "haraka",
        Dovecot = "dovecot",
        /// This program's own sink.
        Sink = "sink",
    }
}

/// A `[[listener]]` whose backend is still a name. What is `None` is faulty, or not there.
pub(super) struct ReadListener {
    listener: Listener,
    address: Option<Located<SocketAddr>>,
    backend: Option<Located<String>>,
}

/// A `[[backend]]`. What is `None` is faulty, or not there.
pub(super) struct ReadBackend {
    backend: Backend,
    /// Where its name stands, or else its table.
    name: Span,
    address: Option<Located<HostPort>>,
    identity: Option<Located<IdentityMode>>,
}

pub(super) fn listener(mut section: Section<'_, '_, '_>) -> ReadListener {
    let listener = Listener::read(&mut section);
    check_load_balancers(&mut section);
    let backend = section.optional("backend", |value| text(value, "backend").map(str::to_owned));
    section.optional("tls", |value| no_tls(value, &["starttls", "implicit"]));
    section.optional("service", service);
    let address = section.locate("address", listener.address);
    section.finish();
    ReadListener { listener, address, backend }
}

/// The networks that must send a PROXY header. To name none, or everybody, is to let the header be forged.
fn check_load_balancers(section: &mut Section<'_, '_, '_>) {
    let key = "proxy_protocol_from";
    let Some(list) = section.locate(key, ()) else { return };
    let path = section.path(key);
    let is_empty = section.value(key).and_then(|value| value.get_ref().as_array()).is_some_and(|list| list.is_empty());
    if is_empty {
        let help = "write the load balancers' addresses, such as `[\"10.0.0.5/32\"]`, or delete the key if clients \
                    connect directly";
        section.report().fault(&list.span, format!("{path} is empty: nobody could connect"), help);
    }
    for Located { value, span } in section.elements(key, network) {
        if value.prefix_len() == 0 {
            let message = format!("{path} names `{value}`: every client could claim any address");
            section.report().fault(&span, message, "name only the load balancers, such as `\"10.0.0.5/32\"`");
        }
    }
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
    let mut backend = Backend::read(&mut section);
    let name = match section.locate("name", ()) {
        Some(name) => name.span,
        None => {
            backend.name = default_name(index);
            section.header().unwrap_or_default()
        }
    };
    section.optional("tls", |value| no_tls(value, &["opportunistic", "required", "implicit"]));
    let address = section.locate("address", backend.address.clone());
    let identity = section.locate("identity", backend.identity);
    section.finish();
    ReadBackend { backend, name, address, identity }
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

/// Puts both together. What is faulty is reported.
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
    (listeners, backends.into_iter().map(|read| read.backend).collect())
}

fn backend_indices(backends: &[ReadBackend], report: &mut Report<'_>) -> HashMap<String, usize> {
    let mut indices = HashMap::new();
    for (index, ReadBackend { backend, name, .. }) in backends.iter().enumerate() {
        if indices.contains_key(&backend.name) {
            let message = format!("there are two backends named `{}`", backend.name);
            report.fault(name, message, "give each `[[backend]]` a `name` of its own");
        } else {
            indices.insert(backend.name.clone(), index);
        }
    }
    indices
}

fn resolve(listeners: Vec<ReadListener>, indices: &HashMap<String, usize>, report: &mut Report<'_>) -> Vec<Listener> {
    let mut seen = HashSet::new();
    let mut resolved = Vec::new();
    for ReadListener { listener, address, backend } in listeners {
        let index = match &backend {
            None => 0,
            Some(Located { value, span }) => indices.get(value).copied().unwrap_or_else(|| {
                unknown_backend(value, span, indices, report);
                0
            }),
        };
        if let Some(Located { value: address, span }) = address
            && !seen.insert(address)
        {
            let help = "delete one of the two, or give it another address or port";
            report.fault(&span, format!("there are two listeners on `{address}`"), help);
        }
        resolved.push(Listener { backend: index, ..listener });
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
