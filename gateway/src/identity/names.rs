//! Reverse DNS, for XCLIENT's NAME and REVERSE_NAME.
//!
//! A name counts only if its own addresses include the client's: whoever controls the reverse zone can write any name
//! there. What it writes is told too, as no more than that. The resolver lives on one runtime and keeps one cache; sessions on other threads ask through a channel, and a
//! look-up has its own deadline, so that DNS can delay a client but never hold it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::xclient::{ClientName, is_host_name};
use crate::config::Dns;

/// PTR names tried for one address.
const NAMES_TRIED: usize = 5;
/// Look-ups under way at once; more wait, within their deadline.
const LOOK_UPS_MAX: usize = 256;
/// Questions queued to the resolver's runtime.
const QUEUE_MAX: usize = 4096;

#[derive(Debug)]
struct Question {
    ip: IpAddr,
    answer: oneshot::Sender<ClientName>,
}

/// A handle to the resolver, for any thread.
#[derive(Debug, Clone)]
pub struct Names(Source);

#[derive(Debug, Clone)]
enum Source {
    /// Nobody is asked, and no thread is woken for it.
    Always(ClientName),
    Resolver(mpsc::Sender<Question>),
}

impl Names {
    /// Starts the resolver on the current runtime. An error says why there will be no names; the handle then answers
    /// that they are temporarily unavailable.
    pub fn spawn(dns: &Dns) -> (Self, Option<String>) {
        if !dns.enabled {
            return (Self(Source::Always(ClientName::Unavailable)), None);
        }
        match resolver(dns) {
            Ok(resolver) => {
                let (questions, queue) = mpsc::channel(QUEUE_MAX);
                tokio::spawn(serve(queue, Arc::new(resolver), dns.timeout));
                (Self(Source::Resolver(questions)), None)
            }
            Err(error) => {
                let why = format!(
                    "client names cannot be looked up: {error}; name resolvers in dns.servers, or set dns.enabled = false"
                );
                (Self(Source::Always(ClientName::TemporarilyUnavailable)), Some(why))
            }
        }
    }

    /// The confirmed name of `ip`. Ends within the configured timeout.
    pub async fn look_up(&self, ip: IpAddr) -> ClientName {
        let questions = match &self.0 {
            Source::Always(name) => return name.clone(),
            Source::Resolver(questions) => questions,
        };
        let (answer, reply) = oneshot::channel();
        if questions.try_send(Question { ip, answer }).is_err() {
            return ClientName::TemporarilyUnavailable;
        }
        reply.await.unwrap_or(ClientName::TemporarilyUnavailable)
    }
}

/// One that asks the configured servers, or else the system's.
///
/// # Errors
/// The system's configuration cannot be read.
pub(crate) fn resolver(dns: &Dns) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = if dns.servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = dns.servers.iter().map(|server| name_server(*server)).collect();
        TokioResolver::builder_with_config(ResolverConfig::from_parts(None, Vec::new(), servers), provider)
    };
    let options = builder.options_mut();
    options.cache_size = u64::try_from(dns.cache_entries).unwrap_or(u64::MAX);
    // A lost packet must leave time to ask again.
    options.timeout = dns.timeout / 2;
    options.attempts = 1;
    builder.build()
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

async fn serve(mut queue: mpsc::Receiver<Question>, resolver: Arc<TokioResolver>, timeout: Duration) {
    let slots = Arc::new(Semaphore::new(LOOK_UPS_MAX));
    while let Some(Question { ip, mut answer }) = queue.recv().await {
        let (resolver, slots) = (resolver.clone(), slots.clone());
        tokio::spawn(async move {
            let look_up = async {
                let _slot = slots.acquire().await;
                confirm(&resolver, ip).await
            };
            let name = tokio::select! {
                name = tokio::time::timeout(timeout, look_up) => name.unwrap_or(ClientName::TemporarilyUnavailable),
                // A session that is gone no longer asks, and there are no more look-ups than sessions.
                () = answer.closed() => return,
            };
            // As above.
            let _ = answer.send(name);
        });
    }
}

async fn confirm(resolver: &TokioResolver, ip: IpAddr) -> ClientName {
    let answer = match resolver.reverse_lookup(ip).await {
        Ok(answer) => answer,
        Err(error) => return absent(&error),
    };
    let (mut failed, mut reverse) = (false, None);
    // As it is on the wire: a name of other letters keeps its `xn--`.
    let names = answer.answers().iter().filter_map(|record| match &record.data {
        RData::PTR(name) => Some(name.0.to_ascii()),
        _ => None,
    });
    // Addresses of the other family confirm nothing, so they are not asked for.
    let family = if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
    for name in names.take(NAMES_TRIED) {
        let name = name.trim_end_matches('.');
        if !is_host_name(name) {
            continue;
        }
        match resolver.lookup(format!("{name}."), family).await {
            Ok(found) if found.answers().iter().any(|record| record.data.ip_addr() == Some(ip)) => {
                return ClientName::Verified(name.into());
            }
            Ok(_) => {}
            Err(error) => failed |= !error.is_no_records_found(),
        }
        reverse.get_or_insert_with(|| name.into());
    }
    match reverse {
        Some(reverse) => ClientName::Unconfirmed { reverse, temporary: failed },
        None => ClientName::Unavailable,
    }
}

fn absent(error: &NetError) -> ClientName {
    if error.is_no_records_found() { ClientName::Unavailable } else { ClientName::TemporarilyUnavailable }
}
