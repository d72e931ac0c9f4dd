//! From a request to its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::Reporter;
use super::exposition::{Format, expose};
use super::host::is_known_host;
use super::page;

/// Who may follow the page at once.
const VIEWERS_MAX: usize = 16;
/// Between two states of the page.
const INTERVAL: Duration = Duration::from_secs(1);
/// States after which a stream ends by itself; the browser asks for the next one.
const STATES_MAX: usize = 600;

type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// Who answers, for all connections.
#[derive(Debug)]
pub(super) struct Answering {
    reporter: Handle,
    hosts: Vec<String>,
    viewers: Arc<AtomicUsize>,
    states: watch::Sender<Bytes>,
}

/// A [`Reporter`] that says nothing of itself.
#[derive(Clone)]
struct Handle(Arc<dyn Reporter>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

/// One who follows the page; given back when dropped.
struct Viewer(Arc<AtomicUsize>);

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Answering {
    /// Begins to keep the page's state fresh while somebody looks, on the current runtime.
    pub(super) fn new(reporter: Arc<dyn Reporter>, hosts: Vec<String>) -> Self {
        let (states, _) = watch::channel(Bytes::new());
        let reporter = Handle(reporter);
        tokio::spawn(refresh(reporter.clone(), states.clone()));
        Self { reporter, hosts, viewers: Arc::default(), states }
    }

    /// The answer to a request; `viewer` is set if the connection then follows the page.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        viewer: &AtomicBool,
    ) -> Result<Response<Body>, Infallible> {
        let mut response = self.route(&request, viewer).await;
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }

    async fn route(&self, request: &Request<Incoming>, viewer: &AtomicBool) -> Response<Body> {
        let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        // A request may name the host in its target too; then that counts.
        let host = request.uri().authority().map(|host| host.as_str()).or(header(header::HOST));
        if !host.is_some_and(|host| is_known_host(host, &self.hosts)) {
            let why = "this host name is not known here; ask by an address, or add the name to `metrics.hosts`\n";
            return plain(StatusCode::MISDIRECTED_REQUEST, why);
        }
        if request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        match request.uri().path() {
            "/" => typed("text/html; charset=utf-8", page::HTML),
            "/metrics" => self.metrics(Format::accepted(header(header::ACCEPT).unwrap_or_default())).await,
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => match self.ask(|reporter| reporter.ready()).await {
                Some(Ok(())) => plain(StatusCode::OK, "ready\n"),
                Some(Err(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
                None => failed(),
            },
            "/status.json" => match self.ask(|reporter| reporter.page_state()).await {
                Some(state) => typed("application/json", state),
                None => failed(),
            },
            "/live" => self.live(viewer),
            _ => plain(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz, /readyz and /status.json\n"),
        }
    }

    async fn metrics(&self, format: Format) -> Response<Body> {
        match self.ask(move |reporter| expose(reporter.totals(), reporter.samples(), format)).await {
            Some(page) => typed(format.media_type(), page),
            None => failed(),
        }
    }

    /// Asks where that holds up nobody: what the kernel knows takes a moment. `None` if whoever answered panicked.
    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&dyn Reporter) -> T + Send + 'static) -> Option<T> {
        let reporter = self.reporter.clone();
        spawn_blocking(move || question(&*reporter.0)).await.inspect_err(|error| warn!(%error, "metrics")).ok()
    }

    /// Server-sent events: the page's state, now and whenever it is another.
    fn live(&self, viewer: &AtomicBool) -> Response<Body> {
        let mine = Viewer(self.viewers.clone());
        if self.viewers.fetch_add(1, Ordering::Relaxed) >= VIEWERS_MAX {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many follow the page already\n");
        }
        viewer.store(true, Ordering::Relaxed);
        let (mut sender, body) = Channel::new(1);
        let mut states = self.states.subscribe();
        tokio::spawn(async move {
            let _mine = mine;
            for _ in 0..STATES_MAX {
                let state = states.borrow_and_update().clone();
                // An empty one is none yet. Who has gone away takes no more.
                if !state.is_empty() && sender.send_data(state).await.is_err() {
                    return;
                }
                if states.changed().await.is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(Either::Right(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }
}

/// What every answer says: that it is for this page alone, and for now.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, page::POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Makes a new state once a second while somebody looks, for all who look together.
async fn refresh(reporter: Handle, states: watch::Sender<Bytes>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if states.receiver_count() == 0 {
            states.send_replace(Bytes::new());
            continue;
        }
        let reporter = reporter.clone();
        match spawn_blocking(move || reporter.0.page_state()).await {
            Ok(state) => drop(states.send_replace(Bytes::from(format!("retry: 1000\ndata: {state}\n\n")))),
            Err(error) => warn!(%error, "the page's state"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = typed("text/plain; charset=utf-8", text);
    *response.status_mut() = status;
    response
}

fn typed(media_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(content.into())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn failed() -> Response<Body> {
    plain(StatusCode::INTERNAL_SERVER_ERROR, "this cannot be said now; the log may tell why\n")
}
