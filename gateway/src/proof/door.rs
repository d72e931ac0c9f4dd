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
use crate::config::{BackendTls, IdentityMode};
use crate::identity::proxy_out::{self, V2_SIGNATURE};
use crate::identity::xclient::{ClientName, Ipv6Form};
use crate::identity::{ClientAddr, PeerAddr, transparent};
use crate::opening::{Awaited, Failure, Hello, Identity, IdentityFault, Opening, Progress, Record, Script};
use crate::smtp::ehlo::Offer;

use crate::tls::Connector;

use super::conversation::{Conversation, ConversationFault};
use super::plan::Probe;
use super::probe::{Greeting, ProbeKind, Problem};

/// The client's port that is told; nobody has it.
const CLIENT_PORT: u16 = 50_025;
const NOT_PROXY: &str = "it takes the PROXY header for a command";

/// The way to a server, for one probe.
#[derive(Clone)]
pub(super) struct Door<'a> {
    pub(super) probe: &'a Probe,
    /// The backend's.
    pub(super) mode: IdentityMode,
    /// Whether the backend is spoken to over TLS.
    pub(super) tls: BackendTls,
    /// Begins that TLS.
    pub(super) connector: Option<&'a Connector>,
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
    pub(super) conversation: Conversation,
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
        let proxied = self.mode.is_proxy();
        match (self.probe.kind, self.probe.identity) {
            (ProbeKind::FrontDoor | ProbeKind::Hidden | ProbeKind::Outside, _) => self.greet(Header::None).await,
            (ProbeKind::Naked, _) if proxied => self.nobody().await,
            (_, None) => self.greet(Header::None).await,
            _ if self.shows_address() => self.greet(Header::None).await,
            (_, Some(identity)) if proxied => self.greet(Header::Client(identity)).await,
            (_, Some(identity)) => {
                let refused = match self.name(identity, self.ipv6_form).await {
                    Err(problem @ Problem::Identity(_)) if identity.is_ipv6() => problem,
                    opened => return opened,
                };
                // Perhaps it only wants the address written otherwise.
                let other = match self.ipv6_form {
                    Ipv6Form::Prefixed => Ipv6Form::Bare,
                    Ipv6Form::Bare => Ipv6Form::Prefixed,
                };
                let opened = self.name(identity, other).await.map_err(|_| refused)?;
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

    /// Without XCLIENT: up to the reply to EHLO.
    async fn greet(&self, header: Header) -> Result<Opened, Problem> {
        self.open_as(header, None).await
    }

    /// By XCLIENT.
    async fn name(&self, identity: IpAddr, form: Ipv6Form) -> Result<Opened, Problem> {
        self.open_as(Header::None, Some((identity, form))).await
    }

    /// Opens a session by the machine that opens those of clients; as theirs, it goes on in clear text where TLS fails and is
    /// not demanded.
    async fn open_as(&self, header: Header, named: Option<(IpAddr, Ipv6Form)>) -> Result<Opened, Problem> {
        let mut opened = self.open_by(Opening::new(), header, named).await;
        if matches!(opened, Err(NotOpened::NoTls(_))) && self.tls == BackendTls::Opportunistic {
            opened = self.open_by(Opening::in_clear_text(), header, named).await;
        }
        opened.map_err(|not_opened| match not_opened {
            NotOpened::NoTls(why) => Problem::Other(why),
            NotOpened::Otherwise(problem) => problem,
        })
    }

    async fn open_by(
        &self,
        mut opening: Opening,
        header: Header,
        named: Option<(IpAddr, Ipv6Form)>,
    ) -> Result<Opened, NotOpened> {
        let stream = self.connect().await?;
        let source = stream.local_addr().ok().map(|address| address.ip().to_canonical());
        let destination = stream.local_addr().map_err(|error| Problem::Other(error.to_string()))?;
        let mut conversation = Conversation::over(stream, self.reply_timeout, self.deadline);
        self.send_header(&mut conversation, header).await?;
        let identity = match named {
            Some((ip, ipv6_form)) => Identity::Xclient {
                client: ClientAddr::direct(PeerAddr::from_socket((ip, CLIENT_PORT).into())),
                name: Some(&self.client_name),
                destination,
                ipv6_form,
            },
            None if header == Header::None => Identity::Elsewhere,
            None => Identity::ProxySent,
        };
        let hello = Hello::of_the_gateway(self.hostname);
        let script = Script { hostname: self.hostname, tls: self.tls, identity, hello };
        let (mut record, mut to_send) = (Record::default(), Vec::new());
        let mut progress = opening.connected(&script, &mut to_send);
        loop {
            let awaits = opening.awaits();
            let lost = |fault| self.lost(awaits, header, named.is_some() && awaits == Awaited::Other, &fault);
            conversation.say(&to_send).await.map_err(lost)?;
            to_send.clear();
            progress = match progress {
                Progress::Open(offer) => {
                    let source = if self.front.is_some() { None } else { source };
                    let banner = record.greeting().to_owned();
                    let greeting = Greeting { banner, hello: record.hello };
                    return Ok(Opened { conversation, greeting, source, offer });
                }
                Progress::Failed(failure) => return Err(problem(&failure, &record, source).into()),
                Progress::Secure(_) => {
                    let Some(connector) = self.connector else {
                        let why = "it is to be spoken to over TLS, which cannot be set up";
                        return Err(NotOpened::NoTls(why.to_owned()));
                    };
                    conversation.secure(connector).await.map_err(|fault| NotOpened::NoTls(fault.to_string()))?;
                    opening.secured(&script, &mut to_send)
                }
                Progress::Name => opening.named(&script, &mut to_send),
                Progress::Reply => {
                    let unread = conversation.hear_raw().await.map_err(lost)?;
                    record.note(&opening, unread);
                    let (used, progress) = opening.reply(&script, unread, &mut to_send);
                    conversation.heard(used);
                    progress
                }
            };
        }
    }

    /// What it means that the connection was lost, or nothing came, while this was awaited.
    fn lost(&self, awaits: Awaited, header: Header, by_xclient: bool, fault: &ConversationFault) -> Problem {
        let why = fault.to_string();
        match (header, awaits) {
            _ if by_xclient => Problem::Identity(why),
            (Header::None, _) => Problem::Other(why),
            (_, Awaited::Banner) => Problem::Other(format!("behind the PROXY header, {why}")),
            // Some hang up at once on who talks before the banner.
            (_, Awaited::Hello | Awaited::Other) => Problem::Identity(format!("{NOT_PROXY}, and {why}")),
        }
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
        told && self.mode.is_transparent()
    }

    /// The address from which the server is reached.
    async fn source(&self) -> Result<IpAddr, Problem> {
        let stream = self.connect().await?;
        stream.local_addr().map(|own| own.ip()).map_err(|error| Problem::Other(error.to_string()))
    }

    async fn send_header(&self, conversation: &mut Conversation, header: Header) -> Result<(), ConversationFault> {
        let own = conversation.stream().local_addr().map_err(ConversationFault::Lost)?;
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
        conversation.remark(&format!("PROXY header, {}: {what}", if first { "version 1" } else { "version 2" }));
        conversation.send(&bytes).await
    }
}

/// Why a session did not open.
enum NotOpened {
    /// The handshake failed.
    NoTls(String),
    Otherwise(Problem),
}

impl From<ConversationFault> for NotOpened {
    fn from(fault: ConversationFault) -> Self {
        Self::Otherwise(fault.into())
    }
}

impl From<Problem> for NotOpened {
    fn from(problem: Problem) -> Self {
        Self::Otherwise(problem)
    }
}

/// Why a session did not open, for people.
fn problem(failure: &Failure, record: &Record, source: Option<IpAddr>) -> Problem {
    let (code, text) = record.last.as_ref().map_or((0, ""), |(code, text)| (*code, text));
    match failure {
        Failure::Identity(IdentityFault::ProxyRefused | IdentityFault::ProxyAnswered) => {
            Problem::Identity(NOT_PROXY.to_owned())
        }
        Failure::Identity(IdentityFault::XclientNotOffered) => {
            let whom = source.map_or_else(|| "the gateway".to_owned(), |source| source.to_string());
            Problem::Identity(format!("it does not offer XCLIENT to {whom}"))
        }
        // Some count the client that is named, and not the gateway.
        Failure::Identity(IdentityFault::XclientRefused) if code == 421 => {
            Problem::Busy(format!("it refuses XCLIENT with {code} {text}"))
        }
        Failure::Identity(IdentityFault::XclientRefused) => {
            Problem::Identity(format!("it refuses XCLIENT with {code} {text}"))
        }
        Failure::Identity(IdentityFault::EhloRefused) => {
            Problem::Identity(format!("it answers EHLO with {code} {text}"))
        }
        Failure::Identity(IdentityFault::OutOfStep) => Problem::Other("its replies are out of step".to_owned()),
        Failure::Tls(fault) => Problem::Other(fault.to_string()),
        Failure::Refused(_) if record.banner_is_last() && code == 421 => {
            Problem::Busy(format!("it greets with {code} {text}"))
        }
        Failure::Refused(_) | Failure::Unexpected if record.banner_is_last() => {
            Problem::Other(format!("it greets with {code} {text}"))
        }
        Failure::Refused(_) | Failure::Unexpected => Problem::Other(format!("it answers EHLO with {code} {text}")),
        Failure::NotSmtp => Problem::Other("it answers what is no SMTP reply".to_owned()),
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
