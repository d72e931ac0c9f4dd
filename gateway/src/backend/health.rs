//! Health checks: a session is opened as for a client, and ended with QUIT and 221. What the backend offers is learned on the
//! way.
//!
//! A check is polite (it reads every reply, waits for 221) and honest: towards a PROXY backend it names the gateway's own
//! address as the client, for that is who is asking.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use crate::config::{BackendTls, HostPort, Timeouts};
use crate::opening::{Failure, Hello, Identity, IdentityFault, Opening, Progress, Record, Script};
use crate::session::{Dialect, Sizes};
use crate::smtp::ehlo::{Extensions, XclientAttributes};
use crate::smtp::reply::{ReplyParse, read_reply};
use crate::time::clock::now;
use crate::tls::{Channel, TlsFault, TlsStream};

use super::busy::{self, is_busy};
use super::connect::LeadsBack;
use super::state::{BackendState, Health};

/// A check that was asked for comes no sooner than this after the last.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// How long a TLS handshake may take at most. It has less than the whole opening, so that there is time to go on without, and
/// to say what was waited for.
const TLS_TIMEOUT: Duration = Duration::from_secs(20);

/// Checks a backend for ever: at once, then at every interval or when a session asks. `first` is told of the first result.
pub async fn watch(
    backend: Arc<BackendState>,
    hostname: String,
    sizes: Sizes,
    timeouts: Timeouts,
    first: oneshot::Sender<()>,
) {
    let mut first = Some(first);
    loop {
        let deadline = timeouts.connect + timeouts.handshake;
        let tls_timeout = TLS_TIMEOUT.min(timeouts.handshake / 2);
        backend.load.is_asked(now());
        let checked = match timeout(deadline, check(&backend, &hostname, sizes, tls_timeout)).await {
            Ok(checked) => checked,
            Err(_) => Err(NotOpen::TooSlow(backend.address.clone(), deadline)),
        };
        if !checked.as_ref().is_err_and(NotOpen::is_silence) {
            backend.load.is_not_asked();
        }
        backend.set_health(match checked {
            Ok(health) => health,
            Err(NotOpen::Busy(problem)) => Health {
                healthy: backend.health().was_well(),
                checked_at: Some(Instant::now()),
                problem: Some(problem),
                ..Health::default()
            },
            Err(fault) => {
                Health { checked_at: Some(Instant::now()), problem: Some(fault.to_string()), ..Health::default() }
            }
        });
        if let Some(first) = first.take() {
            // Whoever waited may have gone on without us.
            let _ = first.send(());
        }
        tokio::time::sleep(REFRESH_PAUSE).await;
        // Either is reason enough for the next check.
        let _ = timeout(timeouts.health_interval, backend.refresh_asked()).await;
    }
}

async fn check(backend: &BackendState, hostname: &str, sizes: Sizes, tls_timeout: Duration) -> Result<Health, NotOpen> {
    let address = &backend.address;
    // While its name cannot be resolved, where it was is the best that is known.
    if let Err(error) = backend.resolve().await {
        if error.get_ref().is_some_and(|error| error.is::<LeadsBack>()) {
            return Err(NotOpen::Failed(error.to_string()));
        }
        debug!(%address, %error, "cannot be resolved");
    }
    let mut clear_text = None;
    let mut opened = connect(backend, hostname, Opening::new(), tls_timeout).await;
    if let Err(NotOpen::NoTls(_, why, _)) = &opened
        && backend.tls == BackendTls::Opportunistic
    {
        clear_text = Some(why.to_string());
        opened = connect(backend, hostname, Opening::in_clear_text(), tls_timeout).await;
    }
    let mut session = opened?;
    let tls = session.stream.channel().and_then(Channel::facts);
    let verified = tls.is_some_and(|facts| facts.verified);
    let dialect = Dialect::new(hostname, sizes, &session.record.offer, &session.record.keywords, verified);
    backend.set_dialect(dialect);
    session.quit().await.map_err(|error| NotOpen::NotSmtp(address.clone(), error))?;
    let Record { keywords, offer, .. } = &session.record;

    let offers_identity =
        offer.extensions.contains(Extensions::XCLIENT) && offer.xclient.contains(XclientAttributes::ADDR);
    let problem = (backend.identity.is_xclient() && !offers_identity).then(|| no_xclient(address));
    Ok(Health {
        healthy: problem.is_none(),
        checked_at: Some(Instant::now()),
        problem,
        banner: session.record.greeting().to_owned(),
        keywords: keywords.lines().to_vec(),
        tls,
        clear_text,
        ..Health::default()
    })
}

/// Why no session of the gateway's own stood to its end, a sentence for people.
#[derive(Debug, thiserror::Error)]
enum NotOpen {
    #[error("cannot connect to {0}: {1}")]
    Unreachable(HostPort, #[source] io::Error),
    #[error("no answer from {0} within {seconds} s", seconds = .1.as_secs())]
    TooSlow(HostPort, Duration),
    #[error("{0} spoke, but not as a mail server: {1}")]
    NotSmtp(HostPort, #[source] io::Error),
    #[error("{0}: no TLS with it, so all mail is answered 451: {1}{mend}", mend = mend(.1, *.2))]
    NoTls(HostPort, #[source] io::Error, BackendTls),
    /// It takes no connection now, but will.
    #[error("{0}")]
    Busy(String),
    /// The opening itself failed.
    #[error("{0}")]
    Failed(String),
}

impl NotOpen {
    /// Whether nothing was heard where something was waited for; something may have been heard before.
    fn is_silence(&self) -> bool {
        match self {
            Self::TooSlow(..) => true,
            Self::NoTls(_, error, _) => matches!(tls_fault(error), Some(TlsFault::TimedOut)),
            _ => false,
        }
    }
}

fn tls_fault(error: &io::Error) -> Option<&TlsFault> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// What to write where the port is not one for TLS from the first byte.
fn mend(error: &io::Error, tls: BackendTls) -> &'static str {
    match (tls_fault(error), tls) {
        (Some(TlsFault::ClearText), BackendTls::Implicit) => {
            "; write its port for TLS from the first byte, mostly 465, or `tls = \"required\"` for STARTTLS on this one"
        }
        (Some(TlsFault::TimedOut), BackendTls::Implicit) => {
            "; see whether this is its port for TLS from the first byte, mostly 465"
        }
        _ => "",
    }
}

async fn connect(
    backend: &BackendState,
    hostname: &str,
    opening: Opening,
    tls_timeout: Duration,
) -> Result<Session, NotOpen> {
    let stream = backend.connect().await;
    let stream = stream.map_err(|error| NotOpen::Unreachable(backend.address.clone(), error))?;
    open(stream, backend, hostname, opening, tls_timeout).await
}

/// Opens a session for the gateway itself, which tells of no client.
async fn open(
    stream: TcpStream,
    backend: &BackendState,
    hostname: &str,
    mut opening: Opening,
    tls_timeout: Duration,
) -> Result<Session, NotOpen> {
    let BackendState { address, identity, tls, .. } = backend;
    let lost = |error: io::Error| NotOpen::NotSmtp(address.clone(), error);
    let (own, peer) = (stream.local_addr().map_err(lost)?, stream.peer_addr().map_err(lost)?);
    let script = Script {
        hostname,
        tls: *tls,
        identity: Identity::of_the_gateway(*identity, own, peer),
        hello: Hello::of_the_gateway(hostname),
    };
    let asked_at = now();
    let mut has_spoken = false;
    let stream = TlsStream::plain(stream);
    let mut session = Session { stream, unread: Vec::new(), record: Record::default() };
    let mut to_send = Vec::new();
    let mut progress = opening.connected(&script, &mut to_send);
    loop {
        session.stream.write_all(&to_send).await.map_err(lost)?;
        to_send.clear();
        progress = match progress {
            Progress::Open(_) => return Ok(session),
            Progress::Failed(failure) => {
                return Err(match &session.record.last {
                    Some((code, text)) if session.record.banner_is_last() && is_busy(*code) => {
                        NotOpen::Busy(busy::sentence(address, *code, text))
                    }
                    _ => NotOpen::Failed(problem(&failure, backend, &session.record)),
                });
            }
            Progress::Secure(_) => {
                let secured = timeout(tls_timeout, backend.secure_stream(&mut session.stream)).await;
                let secured = secured.unwrap_or_else(|_| Err(io::Error::other(TlsFault::TimedOut)));
                secured.map_err(|error| NotOpen::NoTls(address.clone(), error, *tls))?;
                opening.secured(&script, &mut to_send)
            }
            // The gateway's own name is known.
            Progress::Name => opening.named(&script, &mut to_send),
            Progress::Reply => {
                session.record.note(&opening, &session.unread);
                let (used, progress) = opening.reply(&script, &session.unread, &mut to_send);
                session.unread.drain(..used);
                if used == 0 {
                    session.read().await.map_err(lost)?;
                    if !std::mem::replace(&mut has_spoken, true) {
                        backend.load.has_spoken(asked_at, now());
                    }
                }
                progress
            }
        };
    }
}

fn problem(failure: &Failure, backend: &BackendState, record: &Record) -> String {
    let BackendState { address, identity, .. } = backend;
    let (code, text) = record.last.as_ref().map_or((0, ""), |(code, text)| (*code, text));
    match failure {
        Failure::Identity(IdentityFault::ProxyRefused | IdentityFault::ProxyAnswered) => format!(
            "{address} takes the PROXY header ({}) for a command, so all mail is answered 451; enable it there (Postfix: \
             smtpd_upstream_proxy_protocol = haproxy; Exim: hosts_proxy) or choose another `identity`",
            identity.as_str()
        ),
        Failure::Identity(IdentityFault::OutOfStep) if record.hello.is_empty() => {
            format!("{address} says more than its greeting before it is asked, so all mail is answered 451")
        }
        Failure::Identity(fault) => format!("{address}: {fault}"),
        Failure::Tls(fault) => format!("{address}: {fault}, so all mail is answered 451"),
        Failure::Refused(_) | Failure::Unexpected if record.banner_is_last() => {
            format!("{address} greets the gateway with {code} {text}")
        }
        Failure::Refused(_) | Failure::Unexpected => format!("{address} answers EHLO with {code} {text}"),
        Failure::NotSmtp => format!("{address} spoke, but not as a mail server"),
    }
}

fn no_xclient(address: &HostPort) -> String {
    format!(
        "{address} does not offer XCLIENT to the gateway, so all mail is answered 451; allow it there (Postfix: \
         smtpd_authorized_xclient_hosts, with the gateway's address) or choose another `identity`"
    )
}

/// An open session of the gateway's own.
struct Session {
    stream: TlsStream,
    unread: Vec<u8>,
    record: Record,
}

impl Session {
    async fn read(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.unread).await? == 0 {
            return Err(io::Error::other("it closed the connection"));
        }
        Ok(())
    }

    /// Says QUIT and waits for the answer, whatever it is.
    async fn quit(&mut self) -> io::Result<()> {
        self.stream.write_all(b"QUIT\r\n").await?;
        while read_reply(&self.unread) == ReplyParse::Incomplete {
            self.read().await?;
        }
        Ok(())
    }
}
