//! `network`: the routing that `identity = "transparent"` needs, shown, set up and taken down.
//!
//! A backend answers the client's address. On this host such an answer must come to the gateway's socket instead of being
//! sent on: a rule takes what comes from the backend's SMTP port to a table whose one route says that every address is this
//! host's. On the backend's host, answers to clients must take the way through here; that is told, for it is not ours to do.

mod rules;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use clap::{Args, Subcommand};

use crate::config::{Backend, Config, HostPort};

use super::failure::{ConfigArgument, Failure, load};
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
struct Target {
    backend: String,
    rule: Rule,
    /// This host's address on the way there.
    gateway: Option<IpAddr>,
}

pub(super) fn network(arguments: &NetworkArguments) -> Result<(), Failure> {
    match &arguments.verb {
        NetworkVerb::Show(ConfigArgument { config }) => {
            let targets = targets(&load(config)?)?;
            print!("{}", page(&targets, present));
            Ok(())
        }
        NetworkVerb::Up(ConfigArgument { config }) => {
            let wanted: Vec<_> = targets(&load(config)?)?.into_iter().map(|target| target.rule).collect();
            reconcile(&wanted)
        }
        NetworkVerb::Down(_) => reconcile(&[]),
    }
}

/// Says what is done, a command a line.
fn reconcile(wanted: &[Rule]) -> Result<(), Failure> {
    let mut done = 0;
    rules::reconcile(wanted, &mut |command| {
        done += 1;
        println!("{command}");
    })
    .map_err(Failure::new)?;
    if done == 0 {
        println!("nothing to do");
    }
    Ok(())
}

/// The rules that are there, and whether the route is.
type State = (Vec<Rule>, bool);

fn present(family: Family) -> Option<State> {
    let rules = rules::present(family).ok()?;
    let routed = rules::is_routed(family).ok()?;
    Some((rules.into_iter().filter_map(|present| present.rule).collect(), routed))
}

fn targets(config: &Config) -> Result<Vec<Target>, Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for backend in config.backends.iter().filter(|backend| backend.identity.is_transparent()) {
        for address in addresses(backend)? {
            let rule = Rule { source: address.ip(), port: address.port() };
            if targets.iter().all(|target| target.rule != rule) {
                targets.push(Target { backend: backend.name.clone(), rule, gateway: own_address(address) });
            }
        }
    }
    Ok(targets)
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

/// The page of `show`. `present` tells what is there, unless that cannot be known.
fn page(targets: &[Target], present: impl Fn(Family) -> Option<State>) -> String {
    if targets.is_empty() {
        return "No backend has identity = \"transparent\": nothing is needed.\n".to_owned();
    }
    let mut page = "On this host, so that answers to clients come to the gateway (`smtp-gateway network up` does it, `down` undoes \
                    it):\n\n"
        .to_owned();
    for family in [Family::V4, Family::V6] {
        let of_family = || targets.iter().filter(|target| Family::of(target.rule.source) == family);
        if of_family().next().is_none() {
            continue;
        }
        let present = present(family);
        let state = |is_there: &dyn Fn(&State) -> bool| match &present {
            Some(state) if is_there(state) => "in place",
            Some(_) => "missing",
            None => "not known",
        };
        line(&mut page, &format!("  {}    # {}", rules::add_route(family), state(&|(_, routed)| *routed)));
        for Target { rule, .. } in of_family() {
            line(&mut page, &format!("  {}    # {}", rules::add_rule(rule), state(&|(rules, _)| rules.contains(rule))));
        }
    }
    for target in targets.iter().filter(|target| target.gateway != Some(target.rule.source)) {
        there(&mut page, target);
    }
    page.push_str(
        "\nThat port then answers nobody outside the mail server's own network but through the gateway, and nobody inside it \
         through the gateway: let hosts in it speak to the mail server directly, and give others that must, such as further mail \
         servers, another port.\n",
    );
    page
}

/// What a backend's own host needs. On Linux its own networks are left as they are, as they are by a default gateway.
fn there(page: &mut String, Target { backend, rule: Rule { source, port }, gateway }: &Target) {
    let family = Family::of(*source);
    let own = gateway.map_or_else(|| "this host".to_owned(), |own| own.to_string());
    let before = TABLE - 1;
    line(page, &format!("\nOn {source}, which is backend `{backend}`, so that its answers come here:\n"));
    line(
        page,
        &format!(
            "  Linux:    ip {family} rule add pref {before} ipproto tcp sport {port} lookup main suppress_prefixlength 0"
        ),
    );
    line(page, &format!("            ip {family} rule add pref {TABLE} ipproto tcp sport {port} lookup {TABLE}"));
    line(page, &format!("            ip {family} route replace default via {own} table {TABLE}"));
    line(page, &format!("  Windows:  make {own} its default gateway, and this host forward what else it sends"));
    line(page, &format!("            (here: sysctl {})", family.forwarding()));
}

fn line(page: &mut String, text: &str) {
    // Writing to memory cannot fail.
    let _ = writeln!(page, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(source: &str, gateway: &str) -> Target {
        let rule = Rule { source: source.parse().unwrap(), port: 25 };
        Target { backend: "exchange".into(), rule, gateway: Some(gateway.parse().unwrap()) }
    }

    #[test]
    fn the_page_says_what_is_there_and_what_is_not() {
        let targets = [target("10.0.0.25", "10.0.0.2"), target("fd00::25", "fd00::2")];
        let page = page(&targets, |family| match family {
            Family::V4 => Some((vec![targets[0].rule.clone()], true)),
            Family::V6 => Some((Vec::new(), false)),
        });
        let expected = "\
On this host, so that answers to clients come to the gateway (`smtp-gateway network up` does it, `down` undoes it):

  ip -4 route replace local default dev lo table 25025    # in place
  ip -4 rule add pref 25025 from 10.0.0.25 ipproto tcp sport 25 lookup 25025    # in place
  ip -6 route replace local default dev lo table 25025    # missing
  ip -6 rule add pref 25025 from fd00::25 ipproto tcp sport 25 lookup 25025    # missing

On 10.0.0.25, which is backend `exchange`, so that its answers come here:

  Linux:    ip -4 rule add pref 25024 ipproto tcp sport 25 lookup main suppress_prefixlength 0
            ip -4 rule add pref 25025 ipproto tcp sport 25 lookup 25025
            ip -4 route replace default via 10.0.0.2 table 25025
  Windows:  make 10.0.0.2 its default gateway, and this host forward what else it sends
            (here: sysctl net.ipv4.ip_forward=1)

On fd00::25, which is backend `exchange`, so that its answers come here:

  Linux:    ip -6 rule add pref 25024 ipproto tcp sport 25 lookup main suppress_prefixlength 0
            ip -6 rule add pref 25025 ipproto tcp sport 25 lookup 25025
            ip -6 route replace default via fd00::2 table 25025
  Windows:  make fd00::2 its default gateway, and this host forward what else it sends
            (here: sysctl net.ipv6.conf.all.forwarding=1)

That port then answers nobody outside the mail server's own network but through the gateway, and nobody inside it through the gateway: let hosts in it speak to the mail server directly, and give others that must, such as further mail servers, another port.
";
        assert_eq!(page, expected);
    }

    #[test]
    fn nothing_is_needed_without_a_transparent_backend() {
        assert!(page(&[], |_| None).contains("nothing is needed"));
    }
}
