//! How each probe comes to a server's attention: connected, greeted, and with the identity it is to have.
//!
//! Identity is written by the gateway's own encoders. The one thing only a probe may send is the lack of identity: PROXY
//! `UNKNOWN` and `LOCAL`, by which a backend falls back to the gateway's own address. That is the relay confusion, and what
//! the naked probe asks about.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::accept::FrontDoor;
use crate::config::IdentityMode;
use crate::identity::proxy_out::{self, V2_SIGNATURE};
use crate::identity::xclient::{ClientName, Ipv6Form, XclientFacts, encode_xclient};
use crate::identity::{ClientAddr, PeerAddr, transparent};
use crate::smtp::ehlo::Offer;

use super::plan::Probe;
use super::probe::{Greeting, ProbeKind, Problem};
use super::talk::{Heard, Talk};

/// The client's port that is told; nobody has it.
const CLIENT_PORT: u16 = 50_025;
const NOT_PROXY: &str = "it takes the PROXY header for a command";

/// The way to a server, for one probe.
#[derive(Clone)]
pub(super) struct Door<'a> {
    pub(super) probe: &'a Probe,
    /// The backend's.
    pub(super) mode: IdentityMode,
    /// The gateway's.
    pub(super) hostname: &'a str,
    /// For [`ProbeKind::FrontDoor`] and [`ProbeKind::Hidden`].
    pub(super) front: Option<&'a FrontDoor>,
    pub(super) connect_timeout: Duration,
    pub(super) reply_timeout: Duration,
    pub(super) deadline: Instant,
    /// What an identity given by XCLIENT is called.
    pub(super) client_name: ClientName,
    /// How this backend is told nothing, once that is known.
    pub(super) nobody: Option<Header>,
    /// How IPv6 addresses are written in XCLIENT.
    pub(super) ipv6_form: Ipv6Form,
}

/// A session that is open.
pub(super) struct Opened {
    pub(super) talk: Talk,
    pub(super) greeting: Greeting,
    /// The prober's own address.
    pub(super) source: Option<IpAddr>,
    /// By the last EHLO reply.
    pub(super) offer: Offer,
}

/// What is sent before the banner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    None,
    /// No identity: the backend is to use the connection's own address.
    Nobody,
    /// An address.
    Client(IpAddr),
}

impl Door<'_> {
    /// Opens a session.
    pub(super) async fn open(&mut self) -> Result<Opened, Problem> {
        let proxied = matches!(self.mode, IdentityMode::ProxyV1 | IdentityMode::ProxyV2);
        match (self.probe.kind, self.probe.identity) {
            (ProbeKind::FrontDoor | ProbeKind::Hidden | ProbeKind::Outside, _) => self.greet(Header::None).await,
            (ProbeKind::Naked, _) if proxied => self.nobody().await,
            (_, None) => self.greet(Header::None).await,
            _ if self.shows_address() => self.greet(Header::None).await,
            (_, Some(identity)) if proxied => self.greet(Header::Client(identity)).await,
            (_, Some(identity)) => {
                let opened = self.greet(Header::None).await?;
                let refused = match self.xclient(opened, identity, self.ipv6_form).await {
                    Err(problem @ Problem::Identity(_)) if identity.is_ipv6() => problem,
                    opened => return opened,
                };
                // Perhaps it only wants the address written otherwise.
                let other = match self.ipv6_form {
                    Ipv6Form::Prefixed => Ipv6Form::Bare,
                    Ipv6Form::Bare => Ipv6Form::Prefixed,
                };
                let again = self.greet(Header::None).await?;
                let opened = self.xclient(again, identity, other).await.map_err(|_| refused)?;
                self.ipv6_form = other;
                Ok(opened)
            }
        }
    }

    /// Without an identity, to a backend that is told by PROXY headers: by a header that names nobody, by one that names the
    /// gateway itself where the other is not taken, and by none where the backend turns out to know none.
    async fn nobody(&mut self) -> Result<Opened, Problem> {
        if let Some(header) = self.nobody {
            return self.greet(header).await;
        }
        let own = Header::Client(self.source().await?);
        let mut first = None;
        for header in [Header::Nobody, own, Header::None] {
            match self.greet(header).await {
                Ok(opened) => {
                    self.nobody = Some(header);
                    return Ok(opened);
                }
                // The last is only for backends that take the others for commands: whoever waits for a header hangs.
                Err(Problem::Other(why)) if header == own => {
                    return Err(first.unwrap_or(Problem::Other(why)));
                }
                Err(problem) => first = first.or(Some(problem)),
            }
        }
        Err(first.unwrap_or_else(|| Problem::Other("it cannot be asked".to_owned())))
    }

    /// Up to the reply to EHLO.
    async fn greet(&self, header: Header) -> Result<Opened, Problem> {
        let stream = self.connect().await?;
        let source = stream.local_addr().ok().map(|address| address.ip().to_canonical());
        let mut talk = Talk::over(stream, self.reply_timeout, self.deadline);
        let proxied = header != Header::None;
        self.send_header(&mut talk, header).await.map_err(Problem::Other)?;
        let lost = |why: String| match proxied {
            true => Problem::Other(format!("behind the PROXY header, {why}")),
            false => Problem::Other(why),
        };
        let banner = talk.hear().await.map_err(lost)?;
        if proxied && matches!(banner.answer.code, 500..=503) {
            return Err(Problem::Identity(NOT_PROXY.to_owned()));
        }
        if banner.answer.code != 220 {
            let Heard { answer, .. } = &banner;
            let why = format!("it greets with {} {}", answer.code, answer.text);
            return Err(if answer.code == 421 { Problem::Busy(why) } else { Problem::Other(why) });
        }
        // An answer to the header, if it comes later than this, is taken for the one to EHLO, and is no 250.
        let hello = self.hello(&mut talk, proxied).await?;
        let source = if self.front.is_some() { None } else { source };
        let banner = banner.lines.into_iter().next().unwrap_or_default();
        let greeting = Greeting { banner, hello: hello.lines };
        Ok(Opened { talk, greeting, source, offer: hello.offer })
    }

    async fn hello(&self, talk: &mut Talk, proxied: bool) -> Result<Heard, Problem> {
        let hello = talk.ask(&format!("EHLO {}", self.hostname)).await;
        // Some hang up at once on who talks before the banner.
        let lost =
            |why| if proxied { Problem::Identity(format!("{NOT_PROXY}, and {why}")) } else { Problem::Other(why) };
        let hello = hello.map_err(lost)?;
        match hello.answer.code {
            250 => Ok(hello),
            500..=503 if proxied => Err(Problem::Identity(NOT_PROXY.to_owned())),
            code => Err(Problem::Other(format!("it answers EHLO with {code} {}", hello.answer.text))),
        }
    }

    /// Tells who the client is by XCLIENT, and says EHLO again.
    async fn xclient(&self, opened: Opened, identity: IpAddr, form: Ipv6Form) -> Result<Opened, Problem> {
        let Opened { mut talk, greeting, source, offer } = opened;
        let destination = talk.stream().local_addr().map_err(|error| Problem::Other(error.to_string()))?;
        let facts = XclientFacts {
            client: ClientAddr::direct(PeerAddr::from_socket((identity, CLIENT_PORT).into())),
            name: &self.client_name,
            helo: self.hostname,
            esmtp: true,
            destination,
            ipv6_form: form,
        };
        let mut command = Vec::new();
        if encode_xclient(&facts, offer.xclient, &mut command).is_err() {
            let whom = source.map_or_else(|| "the gateway".to_owned(), |source| source.to_string());
            return Err(Problem::Identity(format!("it does not offer XCLIENT to {whom}")));
        }
        let line = String::from_utf8_lossy(&command).trim_end().to_owned();
        let heard = talk.ask(&line).await.map_err(Problem::Identity)?;
        if heard.answer.code != 220 {
            let why = format!("it refuses XCLIENT with {} {}", heard.answer.code, heard.answer.text);
            // Some count the client that is named, and not the gateway.
            return Err(if heard.answer.code == 421 { Problem::Busy(why) } else { Problem::Identity(why) });
        }
        let hello = self.hello(&mut talk, false).await?;
        let greeting = Greeting { hello: hello.lines, ..greeting };
        Ok(Opened { talk, greeting, source, offer: hello.offer })
    }

    async fn connect(&self) -> Result<TcpStream, Problem> {
        let Probe { server, bind, identity, .. } = self.probe;
        let shown = identity.filter(|_| self.shows_address());
        let dial = async {
            match (self.front, identity) {
                (Some(front), Some(identity)) => front.enter((*identity, CLIENT_PORT).into()).await,
                _ => dial(*server, *bind, shown).await,
            }
        };
        let until = (Instant::now() + self.connect_timeout).min(self.deadline);
        let whom = match bind.or(shown) {
            Some(source) => format!("cannot connect to {server} from {source}"),
            None => format!("cannot connect to {server}"),
        };
        let why = match timeout_at(until, dial).await {
            Ok(Ok(stream)) => return Ok(stream),
            // The prober's own lack, which says nothing of the backend.
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Problem::Other(format!("{whom}: {error}")));
            }
            Ok(Err(error)) => format!("{whom}: {error}"),
            Err(_) => format!("{whom}: no answer in time"),
        };
        Err(if shown.is_some() { Problem::Identity(why) } else { Problem::Other(why) })
    }

    /// Whether the connection itself has the identity.
    fn shows_address(&self) -> bool {
        let told = matches!(self.probe.kind, ProbeKind::Outsider | ProbeKind::Trusted | ProbeKind::Shunned);
        told && self.mode == IdentityMode::Transparent
    }

    /// The address from which the server is reached.
    async fn source(&self) -> Result<IpAddr, Problem> {
        let stream = self.connect().await?;
        stream.local_addr().map(|own| own.ip()).map_err(|error| Problem::Other(error.to_string()))
    }

    async fn send_header(&self, talk: &mut Talk, header: Header) -> Result<(), String> {
        let own = talk.stream().local_addr().map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let first = self.mode == IdentityMode::ProxyV1;
        match header {
            Header::None => return Ok(()),
            Header::Nobody if first => bytes.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            Header::Nobody => {
                bytes.extend_from_slice(&V2_SIGNATURE);
                bytes.extend_from_slice(&[0x20, 0, 0, 0]);
            }
            Header::Client(ip) => {
                let client = ClientAddr::direct(PeerAddr::from_socket(SocketAddr::new(ip, CLIENT_PORT)));
                if first {
                    proxy_out::encode_v1(client, own, &mut bytes);
                } else {
                    proxy_out::encode_v2(client, own, &mut bytes);
                }
            }
        }
        let what = match header {
            Header::Client(ip) => format!("{ip}"),
            Header::None | Header::Nobody => "no client".to_owned(),
        };
        talk.remark(&format!("PROXY header, {}: {what}", if first { "version 1" } else { "version 2" }));
        talk.send(&bytes).await
    }
}

/// Connects from an address of this host, or from one that is shown as if it were.
async fn dial(server: SocketAddr, bind: Option<IpAddr>, shown: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match shown {
        Some(client) => transparent::socket(client, server)?,
        None if server.is_ipv4() => TcpSocket::new_v4()?,
        None => TcpSocket::new_v6()?,
    };
    if let Some(bind) = bind {
        socket.bind(SocketAddr::new(bind, 0))?;
    }
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
