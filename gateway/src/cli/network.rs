//! `network`: the routing that `identity = "transparent"` needs, shown, set up and taken down.
//!
//! A backend answers the client's address. On this host such an answer must come to the gateway's socket instead of being
//! sent on: a rule takes what comes from the backend's SMTP port to a table whose one route says that every address is this
//! host's. On the backend's host, answers to clients must take the way through here; that is told, for it is not ours to do.

mod rules;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use clap::{Args, Subcommand};

use crate::config::{Backend, Config, HostPort, IdentityMode};

use super::{ConfigArgument, Failure, load};
use rules::{Family, Rule, TABLE};

#[derive(Debug, Args)]
pub(super) struct NetworkArguments {
    #[command(subcommand)]
    verb: NetworkVerb,
}

#[derive(Debug, Subcommand)]
enum NetworkVerb {
    /// Print what transparent backends need of this host and of theirs, and what of it is in place here
    Show(ConfigArgument),
    /// Set this host's part up; what is in place stays, what no backend needs any more goes
    Up(ConfigArgument),
    /// Take this host's part down, whatever the configuration says now
    Down(ConfigArgument),
}

/// A backend at one of its addresses.
struct Place {
    backend: String,
    rule: Rule,
    /// This host's address on the way there.
    gateway: Option<IpAddr>,
}

pub(super) fn network(arguments: &NetworkArguments) -> Result<(), Failure> {
    match &arguments.verb {
        NetworkVerb::Show(ConfigArgument { config }) => {
            let places = places(&load(config)?)?;
            print!("{}", page(&places, |family| rules::present(family).ok()));
            Ok(())
        }
        NetworkVerb::Up(ConfigArgument { config }) => {
            let wanted: Vec<_> = places(&load(config)?)?.into_iter().map(|place| place.rule).collect();
            report(rules::reconcile(&wanted))
        }
        NetworkVerb::Down(_) => report(rules::reconcile(&[])),
    }
}

/// What was done, a command a line.
fn report(done: Result<Vec<String>, rules::RulesError>) -> Result<(), Failure> {
    let done = done.map_err(Failure::new)?;
    if done.is_empty() {
        println!("nothing to do");
    }
    for command in done {
        println!("{command}");
    }
    Ok(())
}

fn places(config: &Config) -> Result<Vec<Place>, Failure> {
    let mut places: Vec<Place> = Vec::new();
    for backend in config.backends.iter().filter(|backend| backend.identity == IdentityMode::Transparent) {
        for address in addresses(backend)? {
            let rule = Rule { source: address.ip(), port: address.port() };
            if places.iter().all(|place| place.rule != rule) {
                places.push(Place { backend: backend.name.clone(), rule, gateway: own_address(address) });
            }
        }
    }
    Ok(places)
}

fn addresses(backend: &Backend) -> Result<Vec<SocketAddr>, Failure> {
    match &backend.address {
        HostPort::Address(address) => Ok(vec![*address]),
        HostPort::Name(name, port) => {
            let found = (name.as_str(), *port).to_socket_addrs();
            let why =
                |error| Failure::new(format!("`{name}` (backend `{}`) cannot be resolved: {error}", backend.name));
            Ok(found.map_err(why)?.collect())
        }
    }
}

/// Asks the kernel's routing; nothing is sent.
fn own_address(towards: SocketAddr) -> Option<IpAddr> {
    let any = if towards.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(towards).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

/// The page of `show`. `present` tells which rules are there, unless that cannot be known.
fn page(places: &[Place], present: impl Fn(Family) -> Option<Vec<Rule>>) -> String {
    if places.is_empty() {
        return "No backend has identity = \"transparent\": nothing is needed.\n".to_owned();
    }
    let mut page = "On this host, so that answers to clients come to the gateway (`smtp-gateway network up` does it, `down` undoes \
                    it):\n\n"
        .to_owned();
    for family in [Family::V4, Family::V6] {
        let of_family = || places.iter().filter(|place| Family::of(place.rule.source) == family);
        if of_family().next().is_none() {
            continue;
        }
        let present = present(family);
        for Place { rule, .. } in of_family() {
            let state = match &present {
                Some(rules) if rules.contains(rule) => "in place",
                Some(_) => "missing",
                None => "not known",
            };
            line(&mut page, &format!("  {}    # {state}", rules::add_rule(rule)));
        }
        line(&mut page, &format!("  {}", rules::add_route(family)));
    }
    for Place { backend, rule, gateway } in places {
        let family = Family::of(rule.source);
        let own = gateway.map_or_else(|| "this host".to_owned(), |own| own.to_string());
        line(
            &mut page,
            &format!("\nOn {}, which is backend `{backend}`, so that its answers come here:\n", rule.source),
        );
        line(
            &mut page,
            &format!("  Linux:    ip {family} rule add pref {TABLE} ipproto tcp sport {} lookup {TABLE}", rule.port),
        );
        line(&mut page, &format!("            ip {family} route replace default via {own} table {TABLE}"));
        line(
            &mut page,
            &format!("  Windows:  make {own} its default gateway; what else it sends is then this host's to forward"),
        );
        line(&mut page, &format!("            (sysctl {})", family.forwarding()));
    }
    page.push_str(
        "\nClients in a backend's own network get its answers past this host, so they cannot come through the gateway: let them \
         speak to it directly.\n",
    );
    page
}

fn line(page: &mut String, text: &str) {
    // Writing to memory cannot fail.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &str, gateway: &str) -> Place {
        let rule = Rule { source: source.parse().unwrap(), port: 25 };
        Place { backend: "exchange".into(), rule, gateway: Some(gateway.parse().unwrap()) }
    }

    #[test]
    fn the_page_says_what_is_there_and_what_is_not() {
        let places = [place("10.0.0.25", "10.0.0.2"), place("fd00::25", "fd00::2")];
        let page = page(&places, |family| match family {
            Family::V4 => Some(vec![places[0].rule.clone()]),
            Family::V6 => Some(Vec::new()),
        });
        let expected = "\
On this host, so that answers to clients come to the gateway (`smtp-gateway network up` does it, `down` undoes it):

  ip -4 rule add pref 25025 from 10.0.0.25 ipproto tcp sport 25 lookup 25025    # in place
  ip -4 route replace local default dev lo table 25025
  ip -6 rule add pref 25025 from fd00::25 ipproto tcp sport 25 lookup 25025    # missing
  ip -6 route replace local default dev lo table 25025

On 10.0.0.25, which is backend `exchange`, so that its answers come here:

  Linux:    ip -4 rule add pref 25025 ipproto tcp sport 25 lookup 25025
            ip -4 route replace default via 10.0.0.2 table 25025
  Windows:  make 10.0.0.2 its default gateway; what else it sends is then this host's to forward
            (sysctl net.ipv4.ip_forward=1)

On fd00::25, which is backend `exchange`, so that its answers come here:

  Linux:    ip -6 rule add pref 25025 ipproto tcp sport 25 lookup 25025
            ip -6 route replace default via fd00::2 table 25025
  Windows:  make fd00::2 its default gateway; what else it sends is then this host's to forward
            (sysctl net.ipv6.conf.all.forwarding=1)

Clients in a backend's own network get its answers past this host, so they cannot come through the gateway: let them speak to it directly.
";
        assert_eq!(page, expected);
    }

    #[test]
    fn nothing_is_needed_without_a_transparent_backend() {
        assert!(page(&[], |_| None).contains("nothing is needed"));
    }
}
