//! The listener: connections that are bounded in number, in what they may send, and in time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::config::Metrics;

use super::Reporter;
use super::answer::Answering;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may take nothing of what is sent to it.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last, and one that follows the page. Browsers and monitoring systems connect again.
const LIFETIME: Duration = Duration::from_secs(60);
const LIFETIME_OF_VIEWERS: Duration = Duration::from_secs(15 * 60);
/// How long a connection whose time is over may still take for its last answer.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// Largest head of a request, in bytes and in fields.
const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;
/// How long accepting pauses when the system has no more file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The socket, before anything is served.
#[derive(Debug)]
pub struct MetricsSocket {
    listener: StdListener,
    hosts: Vec<String>,
}

/// The metrics listener cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for metrics on {address}: {source}; name a free address of this host in `metrics.address`")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl MetricsSocket {
    /// Binds what the configuration asks for, if it does.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn bind(config: &Metrics, hostname: &str) -> Result<Option<Self>, BindError> {
        let Some(address) = config.address else { return Ok(None) };
        let failed = |source| BindError { address, source };
        let listener = StdListener::bind(address).map_err(failed)?;
        Self::over(listener, config, hostname).map(Some).map_err(failed)
    }

    /// The one that another process of this gateway has handed over.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn adopt(listener: StdListener, config: &Metrics, hostname: &str) -> Result<Self, BindError> {
        let address = listener.local_addr();
        let failed = |source| BindError { address: address.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()), source };
        Self::over(listener, config, hostname).map_err(failed)
    }

    fn over(listener: StdListener, config: &Metrics, hostname: &str) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            warn!(%address, "whoever reaches the metrics listener sees who the clients are; keep it from strangers");
        }
        let hosts = config.hosts.iter().cloned().chain([hostname.to_owned(), "localhost".to_owned()]).collect();
        Ok(Self { listener, hosts })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers on the current runtime until it is stopped.
    ///
    /// # Errors
    /// If the runtime does not take the socket.
    pub fn serve(self, reporter: Arc<dyn Reporter>) -> io::Result<MetricsServer> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let serving = tokio::spawn(accept(listener, Arc::new(Answering::new(reporter, self.hosts)))).abort_handle();
        Ok(MetricsServer { listener: self.listener, serving })
    }
}

/// Answers while the runtime lives.
#[derive(Debug)]
pub struct MetricsServer {
    listener: StdListener,
    serving: AbortHandle,
}

impl MetricsServer {
    /// The socket itself, for a process that takes over.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Accepts nobody any more; connections that there are go on.
    pub fn stop(self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, answering: Arc<Answering>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let answering = answering.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, answering).await {
                        debug!(%peer, %error, "metrics connection");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "metrics listener");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// One connection, to its end or to the end of its time.
async fn converse(
    stream: TcpStream,
    answering: Arc<Answering>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Who reads nothing any more is let go by the kernel.
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
    let viewer = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let viewer = viewer.clone();
        move |request| {
            let (answering, viewer) = (answering.clone(), viewer.clone());
            async move { answering.answer(request, &viewer).await }
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX).max_headers(FIELDS_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        done = connection.as_mut() => return Ok(done?),
        () = tokio::time::sleep(LIFETIME) => {}
    }
    if viewer.load(Ordering::Relaxed) {
        tokio::select! {
            done = connection.as_mut() => return Ok(done?),
            () = tokio::time::sleep(LIFETIME_OF_VIEWERS) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    match tokio::time::timeout(LAST_ANSWER, connection).await {
        Ok(done) => Ok(done?),
        Err(_) => Ok(()),
    }
}
