//! `[[listener]]` and `[[backend]]`, each for itself. How they are put together is `join`'s.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::{HostPort, hostname, listen_address, network};
use super::declare::{Each, Maybe, Required, table, words};
use super::diagnostics::quoted;
use super::read::{Complaint, Located, Read, Section};
use super::tls::{CertificateFiles, ListenerTls, TlsVerify, WhereSaid, path, pin};
use super::values::{boolean, integer, text, word};

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
        /// Those of them whose connections are their own where they name nobody.
        own_connections_from: Vec<IpNet> = Vec::new(), Each(network);
        /// Who sends here.
        service: Service = Service::Mx, word;
        /// Whether clients of `relay.allowed_networks` may send here without AUTH.
        relay_without_auth: bool = false, boolean;
    } and {
        /// Whether clients are offered TLS; if not given, where `[tls]` has a certificate.
        tls: ListenerTls = ListenerTls::Off;
        /// Index into `Config::pools`; the key is the backend's name, the default the first backend.
        backend: usize = 0;
    }
}

words! {
    /// `listener.service`
    pub enum Service {
        /// Other mail servers, with mail for local domains.
        Mx = "mx",
        /// Users, who log in and may send anywhere.
        Submission = "submission",
    }
}

table! {
    /// `[[backend]]`, or one of its `servers`: then all is as that says, but name and address.
    pub struct Backend {
        /// Its name in `status` and logs; unique. That of one server among several is `backend/server`.
        name: String = String::new(), backend_name;
        /// How it is told who the client is.
        identity: IdentityMode = IdentityMode::Xclient, word;
        /// Whether XCLIENT says who has logged in, to a second session of the client's.
        xclient_login: bool = false, boolean;
        /// What it is, where it should not be guessed from its greeting.
        kind: Option<ServerKind> = None, Maybe(word);
        /// Whether the connection to it is encrypted.
        tls: BackendTls = BackendTls::Off, word;
        /// Whose certificate it may show; if not given, `roots` where TLS is demanded, and `none` where it is not.
        tls_verify: Option<TlsVerify> = None, Maybe(word);
        /// The name to ask for and to check; if not given, the host name in `address`.
        tls_name: Option<String> = None, Maybe(hostname);
        /// Certificate authorities, for `tls_verify = "ca"`.
        tls_ca: Option<PathBuf> = None, Maybe(path);
        /// Digests of public keys, for `tls_verify = "pin"`.
        tls_pins: Vec<[u8; 32]> = Vec::new(), Each(pin);
        /// Whether passwords may go to it in clear text where TLS cannot be had.
        clear_text_auth: bool = false, boolean;
        /// Most sessions that it has at once; 0 for any number.
        max_sessions: u32 = 0, integer(0..=1_000_000);
    } and {
        /// The gateway's own certificate, for servers that want to see one.
        tls_certificate: Option<CertificateFiles> = None;
        /// Where `tls` stands.
        tls_place: WhereSaid = WhereSaid::default();
        /// Where `tls_ca` stands.
        tls_ca_place: WhereSaid = WhereSaid::default();
        /// Where it listens.
        address: HostPort = HostPort::Address(NOWHERE);
        /// Index into `Config::pools`.
        pool: usize = 0;
        /// How much of the sessions it gets, compared with the others of its pool.
        weight: u32 = 1;
        /// Lower ones are used first; the others are spares.
        priority: u32 = 1;
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
        /// Everything is said in clear.
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
    /// As it is written.
    pub(super) tls: Option<Located<ListenerTls>>,
    pub(super) service: Option<Located<Service>>,
}

pub(super) fn listener(mut section: Section<'_, '_, '_>) -> ReadListener {
    let listener = Listener::read(&mut section);
    check_load_balancers(&mut section);
    let backend = section.optional("backend", |value| text(value, "backend").map(str::to_owned));
    let tls = section.optional("tls", word);
    let service = section.locate("service", listener.service);
    if let Some(Located { span, .. }) = section.locate("relay_without_auth", ())
        && listener.relay_without_auth
        && listener.service == Service::Mx
    {
        let message = "`listener.relay_without_auth` is true, and nobody logs in at this listener";
        section.report().fault(&span, message, "write `service = \"submission\"` too, or delete the key");
    }
    let address = section.locate("address", listener.address);
    section.finish();
    ReadListener { listener, address, backend, tls, service }
}

/// The networks that must send a PROXY header. To name none, or everybody, is to let the header be forged.
fn check_load_balancers(section: &mut Section<'_, '_, '_>) {
    let key = "proxy_protocol_from";
    let Some(list) = section.locate(key, ()) else {
        if let Some(Located { span, .. }) = section.locate("own_connections_from", ()) {
            let message = "`listener.own_connections_from` is given, and there is no `proxy_protocol_from`";
            section.report().fault(&span, message, "write the load balancers' addresses there too, or delete the key");
        }
        return;
    };
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

/// What the `tls_…` keys of a backend must have beside each other.
pub(super) fn check_tls(section: &mut Section<'_, '_, '_>, backend: &Backend) {
    let verify = backend.verifies();
    let is_written = section.locate("tls", ()).is_some();
    let mut fault = |key: &'static str, message: &str, help: &str| {
        if let Some(Located { span, .. }) = section.locate(key, ()) {
            section.report().fault(&span, message, help);
        }
    };
    if backend.tls == BackendTls::Off {
        for key in
            ["tls_verify", "tls_name", "tls_ca", "tls_pins", "tls_certificate"].into_iter().filter(|_| !is_written)
        {
            let message = format!("`backend.{key}` is given, and there is no `backend.tls`");
            fault(key, &message, "write `tls = \"required\"` too, or delete the key");
        }
        return;
    }
    if verify == TlsVerify::Ca && backend.tls_ca.is_none() {
        fault(
            "tls_verify",
            "`backend.tls_verify` is `ca`, and there is no `tls_ca`",
            "write `tls_ca = \"ca.pem\"` too",
        );
    }
    if verify == TlsVerify::Pin && backend.tls_pins.is_empty() {
        let help = "write `tls_pins = [\"…\"]` too, with the SHA-256 of the server's public key";
        fault("tls_verify", "`backend.tls_verify` is `pin`, and there are no `tls_pins`", help);
    }
}

impl Backend {
    /// Whose certificate it may show.
    pub fn verifies(&self) -> TlsVerify {
        let default = if self.tls == BackendTls::Opportunistic { TlsVerify::None } else { TlsVerify::Roots };
        self.tls_verify.unwrap_or(default)
    }

    /// Whether its certificate is checked for a name, and neither `tls_name` nor its address has one.
    pub(super) fn lacks_name(&self) -> bool {
        self.tls != BackendTls::Off
            && matches!(self.verifies(), TlsVerify::Roots | TlsVerify::Ca)
            && self.tls_name.is_none()
            && matches!(self.address, HostPort::Address(_))
    }
}

pub(super) fn backend_name(value: &DeValue<'_>) -> Read<String> {
    plain_name(value, "exchange", "backend")
}

/// A name for one of what is called `what`; `example` is one.
pub(super) fn plain_name(value: &DeValue<'_>, example: &str, what: &str) -> Read<String> {
    let name = text(value, example)?;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > NAME_MAX || !is_plain {
        let message = format!("is {}, which is no name for a {what}", quoted(name));
        let help = format!("write at most {NAME_MAX} letters, digits, hyphens, underscores and dots");
        return Err(Complaint::new(message, help));
    }
    Ok(name.to_owned())
}
