//! What must hold between listeners and backends: mail does not go round, a backend that is told nothing is guarded, and
//! every client can be shown to its backend.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::addresses::HostPort;
use super::diagnostics::Report;
use super::endpoints::{IdentityMode, ReadListener};
use super::pool::{ReadBackend, ReadPool};
use super::read::Located;
use super::values::choice;

/// Reports what does not hold. `indices` are the backends' by name.
pub(super) fn check(
    listeners: &[ReadListener],
    pools: &[ReadPool],
    indices: &HashMap<String, usize>,
    names_domains: bool,
    report: &mut Report<'_>,
) {
    find_loops(listeners, pools, report);
    // What holds for one server of a pool holds for all, but for its address.
    for backend in pools.iter().filter_map(|pool| pool.servers.first()) {
        guard_the_blind(backend, names_domains, report);
    }
    for listener in listeners {
        let index = listener.backend.as_ref().map_or(Some(0), |name| indices.get(&name.value).copied());
        let servers = index.and_then(|index| pools.get(index)).into_iter().flat_map(|pool| &pool.servers);
        for backend in servers {
            find_strangers(listener, backend, report);
        }
    }
}

/// A backend that cannot be told who the client is may trust the gateway; only the guard then stands between it and
/// relaying for strangers.
fn guard_the_blind(backend: &ReadBackend, names_domains: bool, report: &mut Report<'_>) {
    if let Some(Located { value: mode, span }) = &backend.identity
        && !mode.tells()
        && !names_domains
    {
        let message = format!(
            "`backend.identity` is `{}`, which needs `relay.local_domains`: the backend would take every client for the \
             gateway",
            mode.as_str()
        );
        let telling = IdentityMode::ALL.into_iter().filter(|mode| mode.tells()).map(IdentityMode::as_str);
        let telling = choice(&telling.collect::<Vec<_>>());
        report.misfit(span, message, format!("write {telling}, or name the domains in `relay.local_domains`"));
    }
}

/// Clients whose address no connection to the backend can have. Whom a load balancer brings is not known here, nor what
/// addresses a host name has: who cannot be shown is answered 451.
fn find_strangers(listener: &ReadListener, backend: &ReadBackend, report: &mut Report<'_>) {
    let ReadBackend { address: Some(Located { value: HostPort::Address(target), .. }), identity: Some(mode), .. } =
        backend
    else {
        return;
    };
    let Some(Located { value: address, span }) = &listener.address else { return };
    let takes_both = address.is_ipv6() && address.ip().is_unspecified();
    if mode.value != IdentityMode::Transparent
        || !listener.listener.proxy_protocol_from.is_empty()
        || (address.is_ipv4() == target.is_ipv4() && !takes_both)
    {
        return;
    }
    let (strange, any) = match target {
        SocketAddr::V4(_) => ("IPv6", SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))),
        SocketAddr::V6(_) => {
            ("IPv4", SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), address.port())))
        }
    };
    let message = format!(
        "`listener.address` is `{address}`, and its backend's `identity` is `transparent`: no connection to `{target}` can \
         come from an {strange} client"
    );
    let help =
        format!("write an address of the same kind, such as `\"{any}\"`, or a backend's name that has both kinds");
    report.misfit(span, message, help);
}

/// Backends that are one of the gateway's own listeners: mail would go round until its `Received:` fields are too many.
fn find_loops(listeners: &[ReadListener], pools: &[ReadPool], report: &mut Report<'_>) {
    for backend in pools.iter().flat_map(|pool| &pool.servers) {
        let Some(Located { value, span }) = &backend.address else { continue };
        let own = listeners.iter().filter_map(|listener| listener.address.as_ref());
        if let Some(listener) = own.map(|listener| listener.value).find(|listener| is_reached(*listener, value)) {
            let message = format!(
                "`backend.address` is `{value}`, which is the gateway's own listener `{listener}`: mail would loop"
            );
            report.fault(span, message, "write the mail server's address, or have the gateway listen elsewhere");
        }
    }
}

/// Whether who connects to `target` on this machine gets to `listener`. What other addresses this machine has is not
/// known here.
fn is_reached(listener: SocketAddr, target: &HostPort) -> bool {
    let (ips, port) = match target {
        HostPort::Address(address) => (vec![address.ip()], address.port()),
        HostPort::Name(name, port) if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") => {
            (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], *port)
        }
        HostPort::Name(..) => return false,
    };
    let reaches = |ip: IpAddr| match listener.ip() {
        // Unless the system was told otherwise, `[::]` takes IPv4 connections too.
        IpAddr::V6(any) if any.is_unspecified() => ip.is_loopback(),
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4() && ip.is_loopback(),
        own => own == ip,
    };
    listener.port() == port && ips.into_iter().any(reaches)
}
