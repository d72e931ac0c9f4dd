//! Health checks: banner, EHLO, QUIT, 221. What the backend offers is learned on the way.
//!
//! A check is polite (it reads every reply, waits for 221) and honest: towards a PROXY backend it names the gateway's own
//! address as the client, for that is who is asking.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use crate::config::{IdentityMode, Limits, Timeouts};
use crate::identity::{ClientAddr, PeerAddr, proxy_out};
use crate::session::Dialect;
use crate::smtp::ehlo::{Extensions, Keywords, Offer, XclientAttributes};
use crate::smtp::reply::{Reply, ReplyParse, parse_reply};

use super::busy::{self, is_busy};
use super::state::{BackendState, Health};

/// Longest reply read.
const REPLY_MAX: usize = 16 * 1024;
/// A check that was asked for comes no sooner than this after the last.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// Checks a backend for ever: at once, then at every interval or when a session asks. `first` is told of the first result.
pub async fn watch(
    backend: Arc<BackendState>,
    hostname: String,
    limits: Limits,
    timeouts: Timeouts,
    first: oneshot::Sender<()>,
) {
    let mut first = Some(first);
    loop {
        let deadline = timeouts.connect + timeouts.handshake;
        let checked = match timeout(deadline, check(&backend, &hostname, &limits)).await {
            Ok(checked) => checked,
            Err(_) => Err(format!("no answer from {} within {} s", backend.address, deadline.as_secs())),
        };
        backend.set_health(match checked {
            Ok(health) => health,
            Err(problem) => Health { checked_at: Some(Instant::now()), problem: Some(problem), ..Health::default() },
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

async fn check(backend: &BackendState, hostname: &str, limits: &Limits) -> Result<Health, String> {
    let address = &backend.address;
    // While its name cannot be resolved, where it was is the best that is known.
    if let Err(error) = backend.resolve().await {
        debug!(%address, %error, "cannot be resolved");
    }
    let stream = backend.connect().await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
    let mut talk = Talk { stream, buffer: Vec::new() };
    talk.identify(backend.identity).await.map_err(|error| format!("{address}: {error}"))?;

    let lost = |error: io::Error| format!("{address} spoke, but not as a mail server: {error}");
    let (code, banner, used) = talk.reply(|reply| (reply.code, reply.text().into_owned())).await.map_err(lost)?;
    if is_busy(code) {
        let problem = busy::sentence(address, code, &banner);
        return Ok(Health {
            healthy: backend.health().was_well(),
            checked_at: Some(Instant::now()),
            problem: Some(problem),
            ..Health::default()
        });
    }
    if code != 220 {
        return Err(format!("{address} greets the gateway with {code} {banner}"));
    }
    let proxy = matches!(backend.identity, IdentityMode::ProxyV1 | IdentityMode::ProxyV2);
    if talk.buffer.len() > used {
        return Err(if proxy {
            not_proxy(address, backend.identity)
        } else {
            format!("{address} says more than its greeting before it is asked, so all mail is answered 451")
        });
    }
    talk.next(used);
    talk.send(format!("EHLO {hostname}\r\n").as_bytes()).await.map_err(lost)?;
    let read = |reply: &Reply<'_>| {
        (reply.code, (reply.text().into_owned(), Offer::from_reply(reply), Keywords::from_reply(reply)))
    };
    let (code, (text, offer, keywords), used) = talk.reply(read).await.map_err(lost)?;
    if code != 250 {
        return Err(if proxy {
            not_proxy(address, backend.identity)
        } else {
            format!("{address} answers EHLO with {code} {text}")
        });
    }
    talk.next(used);
    backend.set_dialect(Dialect::new(hostname, limits, &offer, &keywords));
    talk.send(b"QUIT\r\n").await.map_err(lost)?;
    let (_, (), _) = talk.reply(|reply| (reply.code, ())).await.map_err(lost)?;

    let problem = (backend.identity == IdentityMode::Xclient && !offers_identity(&offer)).then(|| no_xclient(address));
    Ok(Health {
        healthy: problem.is_none(),
        checked_at: Some(Instant::now()),
        problem,
        banner,
        keywords: keywords.lines().to_vec(),
    })
}

fn offers_identity(offer: &Offer) -> bool {
    offer.extensions.contains(Extensions::XCLIENT) && offer.xclient.contains(XclientAttributes::ADDR)
}

fn no_xclient(address: &impl std::fmt::Display) -> String {
    format!(
        "{address} does not offer XCLIENT to the gateway, so all mail is answered 451; allow it there (Postfix: \
         smtpd_authorized_xclient_hosts, with the gateway's address) or choose another `identity`"
    )
}

fn not_proxy(address: &impl std::fmt::Display, identity: IdentityMode) -> String {
    format!(
        "{address} takes the PROXY header ({}) for a command, so all mail is answered 451; enable it there (Postfix: \
         smtpd_upstream_proxy_protocol = haproxy; Exim: hosts_proxy) or choose another `identity`",
        identity.as_str()
    )
}

/// One conversation.
struct Talk {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Talk {
    async fn identify(&mut self, identity: IdentityMode) -> io::Result<()> {
        let client = ClientAddr::direct(PeerAddr::from_socket(self.stream.local_addr()?));
        let destination = self.stream.peer_addr()?;
        let mut header = Vec::new();
        match identity {
            IdentityMode::ProxyV1 => proxy_out::encode_v1(client, destination, &mut header),
            IdentityMode::ProxyV2 => proxy_out::encode_v2(client, destination, &mut header),
            IdentityMode::Xclient | IdentityMode::Transparent | IdentityMode::TraceHeader | IdentityMode::None => {
                return Ok(());
            }
        }
        self.stream.write_all(&header).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for a whole reply; what `read` makes of it, and its length in the buffer.
    async fn reply<T>(&mut self, read: impl Fn(&Reply<'_>) -> (u16, T)) -> io::Result<(u16, T, usize)> {
        loop {
            match parse_reply(&self.buffer) {
                ReplyParse::Complete { reply, used } => {
                    let (code, value) = read(&reply);
                    return Ok((code, value, used));
                }
                ReplyParse::Faulty(fault) => return Err(io::Error::other(format!("bad reply ({fault:?})"))),
                ReplyParse::Incomplete if self.buffer.len() > REPLY_MAX => {
                    return Err(io::Error::other("endless reply"));
                }
                ReplyParse::Incomplete => {}
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::other("it closed the connection"));
            }
        }
    }

    fn next(&mut self, used: usize) {
        self.buffer.drain(..used);
    }
}
