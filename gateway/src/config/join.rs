//! Listeners and backends put together: names that resolve, and nothing twice. What else must hold between them is
//! `between`'s.

use std::collections::{HashMap, HashSet};

use super::between;
use super::diagnostics::{Report, Span, quoted};
use super::endpoints::{Backend, Listener, ReadListener, Service};
use super::pool::{Pool, ReadPool};
use super::read::Located;
use super::read_route::{self, ReadRoute};
use super::route::Route;
use super::suggest::nearest;
use super::tls::ListenerTls;
use super::values::choice;

/// What other tables say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// `[relay]` names local domains.
    pub(super) names_domains: bool,
    /// `[tls]` has a certificate.
    pub(super) has_certificates: bool,
    /// `[submission]` lets somebody log in without TLS.
    pub(super) has_clear_text_networks: bool,
}

/// Puts both together. What is faulty is reported.
pub(super) fn join(
    listeners: Vec<ReadListener>,
    read: Vec<ReadPool>,
    routes: Vec<ReadRoute>,
    facts: Facts,
    report: &mut Report<'_>,
) -> (Vec<Listener>, Vec<Pool>, Vec<Backend>, Vec<Route>) {
    if listeners.is_empty() {
        let help = "write `[[listener]]`, and under it `address = \"0.0.0.0:25\"`";
        report.missing(("", "listener"), None, "there is no `[[listener]]`", help);
    }
    if read.is_empty() {
        let help = "write `[[backend]]`, and under it the mail server's `address = \"192.0.2.25:25\"`";
        report.missing(("", "backend"), None, "there is no `[[backend]]`", help);
    }
    let indices = pool_indices(&read, report);
    between::check(&listeners, &read, &indices, facts.names_domains, report);
    let listeners = resolve(listeners, &indices, facts, report);
    let routes = read_route::join(routes, &listeners, &indices, report);
    let (mut pools, mut backends) = (Vec::new(), Vec::new());
    for (index, ReadPool { name, servers, srv, .. }) in read.into_iter().enumerate() {
        let first = backends.len();
        backends.extend(servers.into_iter().map(|read| Backend { pool: index, ..read.backend }));
        pools.push(Pool { name, servers: first..backends.len(), srv });
    }
    (listeners, pools, backends, routes)
}

fn pool_indices(pools: &[ReadPool], report: &mut Report<'_>) -> HashMap<String, usize> {
    let mut indices = HashMap::new();
    for (index, ReadPool { name, place, .. }) in pools.iter().enumerate() {
        if indices.contains_key(name) {
            let message = format!("there are two backends named `{name}`");
            report.fault(place, message, "give each `[[backend]]` a `name` of its own");
        } else {
            indices.insert(name.clone(), index);
        }
    }
    indices
}

fn resolve(
    listeners: Vec<ReadListener>,
    indices: &HashMap<String, usize>,
    facts: Facts,
    report: &mut Report<'_>,
) -> Vec<Listener> {
    let mut seen = HashSet::new();
    let mut resolved = Vec::new();
    for ReadListener { listener, address, backend, tls, service } in listeners {
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
        if let Some(Located { value: wanted, span }) = &tls
            && *wanted != ListenerTls::Off
            && !facts.has_certificates
        {
            let message = format!("`listener.tls` is `{}`, and `[tls]` has no certificate", wanted.as_str());
            let help = "write `[tls]`, and under it `certificates = [{ certificate = \"mx.pem\", key = \"mx.key\" }]`; \
                        `smtp-gateway cert` makes one";
            report.misfit(span, message, help);
        }
        let default = if facts.has_certificates { ListenerTls::StartTls } else { ListenerTls::Off };
        let tls = tls.map_or(default, |tls| tls.value);
        if let Some(Located { value: Service::Submission, span }) = &service
            && tls == ListenerTls::Off
            && !facts.has_clear_text_networks
        {
            let message = "`listener.service` is `submission`, and there is no TLS: nobody could log in";
            let help = "write `[tls]`, and under it `certificates = [{ certificate = \"mx.pem\", key = \"mx.key\" }]`, or \
                        under `[submission]` the `clear_text_networks` whose passwords may go in clear";
            report.misfit(span, message, help);
        }
        resolved.push(Listener { backend: index, tls, ..listener });
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
