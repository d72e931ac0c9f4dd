//! `[[listener]]` and `[[backend]]`, each for itself. How they are put together is `join`'s.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::{HostPort, backend_address, listen_address, network};
use super::declare::{Each, Maybe, Required, table, words};
use super::diagnostics::{Span, quoted};
use super::read::{Complaint, Located, Read, Section};
use super::values::{text, word};

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
    } and {
        /// Whether the connection to it is encrypted.
        tls: BackendTls = BackendTls::Off;
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

    /// Whether the client stands in a PROXY header, before everything else.
    pub fn is_proxy(self) -> bool {
        matches!(self, Self::ProxyV1 | Self::ProxyV2)
    }

    /// Whether the client stands in an XCLIENT command.
    pub fn is_xclient(self) -> bool {
        self == Self::Xclient
    }

    /// Whether the connection has the client's address as its own.
    pub fn is_transparent(self) -> bool {
        self == Self::Transparent
    }

    /// Whether the client stands in a header field of each message.
    pub fn is_trace_header(self) -> bool {
        self == Self::TraceHeader
    }

    /// Whether the client's host name is told too, and so must be looked up.
    pub fn tells_name(self) -> bool {
        matches!(self, Self::Xclient | Self::TraceHeader)
    }

    /// Whether only a client with an address of its own can be told of. XCLIENT can say "of somebody unknown"; the others
    /// would say the load balancer's address, which the backend may trust.
    pub fn needs_address(self) -> bool {
        matches!(self, Self::ProxyV1 | Self::ProxyV2 | Self::Transparent | Self::TraceHeader)
    }
}

words! {
    /// `backend.tls`: whether the connection to the backend is encrypted.
    pub enum BackendTls {
        /// Never.
        Off = "off",
        /// Where the backend offers STARTTLS.
        Opportunistic = "opportunistic",
        /// By STARTTLS, or not at all.
        Required = "required",
        /// From the first byte.
        Implicit = "implicit",
    }
}

impl BackendTls {
    /// Whether STARTTLS is asked for.
    pub fn is_by_starttls(self) -> bool {
        matches!(self, Self::Opportunistic | Self::Required)
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
    pub(super) listener: Listener,
    pub(super) address: Option<Located<SocketAddr>>,
    pub(super) backend: Option<Located<String>>,
}

/// A `[[backend]]`. What is `None` is faulty, or not there.
pub(super) struct ReadBackend {
    pub(super) backend: Backend,
    /// Where its name stands, or else its table.
    pub(super) name: Span,
    pub(super) address: Option<Located<HostPort>>,
    pub(super) identity: Option<Located<IdentityMode>>,
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
