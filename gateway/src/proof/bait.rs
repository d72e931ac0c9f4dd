//! For whom the proof's mail is that should pass. Where there are routes, each is gone by with a recipient that it takes; a
//! server is asked about the users that it has, and not about another's.

use std::net::IpAddr;

use crate::config::{Config, NO_ROUTE};
use crate::route::Routes;
use crate::smtp::address::Domain;
use crate::smtp::domains::Membership;

/// Routes that a server is tried by, of each listener that leads to it. One is enough to be open.
pub(super) const ROUTES_MAX: usize = 8;
/// Recipients of a route that are looked at, for one that gets by it.
const KEYS_MAX: usize = 64;
/// Stands before a `.suffix`.
const HOST: &str = "mail";

/// A local recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bait {
    /// Who should exist.
    pub user: String,
    /// Where.
    pub domain: String,
    /// The route's name.
    pub route: String,
}

/// Those by which a client at this address gets from this listener to this backend (an index into `Config::pools`), one a route,
/// in the configuration's order. None where there is nothing to choose, or users decide.
pub(super) fn baits(config: &Config, listener: usize, pool: usize, client: IpAddr) -> Vec<Bait> {
    let routes = Routes::new(config, listener);
    if routes.are_by_user() || routes.pools().len() == 1 {
        return Vec::new();
    }
    let local = &config.relay.local_domains;
    let configured = &config.proof.local_user;
    let user = configured.rsplit_once('@').map_or(&**configured, |(user, _)| user);
    let mut found: Vec<(Option<usize>, Bait)> = Vec::new();
    let mut try_one = |user: &str, domain: &str| {
        let Ok(decision) = routes.decide_text(client, "", &format!("{user}@{domain}")) else { return };
        let is_new = found.iter().all(|(route, _)| *route != decision.route);
        let is_local = local.contains(&Domain::Name(domain)) == Membership::Local;
        if is_new && is_local && routes.pools()[decision.place] == pool && found.len() < ROUTES_MAX {
            let route = decision.route.map_or(NO_ROUTE, |index| &config.routes[index].name).to_owned();
            found.push((decision.route, Bait { user: user.to_owned(), domain: domain.to_owned(), route }));
        }
    };
    if let Some((user, domain)) = configured.rsplit_once('@') {
        try_one(user, domain);
    }
    for route in &config.routes {
        let own = route.recipients.iter().filter(|key| key.backend == pool);
        for key in own.take(KEYS_MAX) {
            match key.text.rsplit_once('@') {
                Some((user, domain)) => try_one(user, domain),
                None if key.text.starts_with('.') => try_one(user, &format!("{HOST}{}", key.text)),
                None => try_one(user, &key.text),
            }
        }
    }
    // For routes that name no recipient, and for what no route takes.
    for domain in local.names() {
        try_one(user, domain);
    }
    found.sort_by_key(|(route, _)| route.unwrap_or(usize::MAX));
    found.into_iter().map(|(_, bait)| bait).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const CONFIG: &str = r#"
        [server]
        hostname = "mx.example.com"
        [[listener]]
        address = "192.0.2.1:25"
        [[listener]]
        address = "192.0.2.2:25"
        backend = "second"
        [relay]
        local_domains = ["example.com", "second.test", ".wide.test", "office.test"]
        [[backend]]
        name = "first"
        address = "192.0.2.25"
        [[backend]]
        name = "second"
        address = "192.0.2.26"
        [[route]]
        name = "boss"
        recipients = ["boss@example.com"]
        backend = "second"
        [[route]]
        name = "partner"
        recipients = ["partner.test"]
        backend = "second"
        [[route]]
        name = "wide"
        recipients = [".wide.test"]
        backend = "second"
        [[route]]
        name = "inside"
        clients = ["10.0.0.0/8"]
        backend = "second"
        [[route]]
        name = "second"
        recipients = ["second.test"]
        listeners = ["192.0.2.1:25"]
        backend = "second"
        "#;

    fn check(more: &str, listener: usize, pool: usize, expected: &[&str]) {
        let config = parse(&format!("{CONFIG}{more}"), "gateway.toml").unwrap();
        let baits = baits(&config, listener, pool, "203.0.113.77".parse().unwrap());
        let shown: Vec<_> = baits.iter().map(|bait| format!("{}: {}@{}", bait.route, bait.user, bait.domain)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn each_route_that_a_stranger_can_take_has_a_recipient_of_its_own() {
        check("", 0, 0, &["none: postmaster@example.com"]);
        // Mail for partner.test is not taken from strangers, and nobody outside has an address in 10.0.0.0/8.
        check(
            "",
            0,
            1,
            &["boss: boss@example.com", "wide: postmaster@mail.wide.test", "second: postmaster@second.test"],
        );
        // Here there is nothing to choose: everything is the second backend's.
        check("", 1, 1, &[]);
    }

    #[test]
    fn a_user_who_is_named_is_the_one_of_his_route() {
        let user = "[proof]\nlocal_user = \"box@office.test\"\n";
        check(user, 0, 0, &["none: box@office.test"]);
        check(user, 0, 1, &["boss: boss@example.com", "wide: box@mail.wide.test", "second: box@second.test"]);
    }

    #[test]
    fn a_route_without_recipients_takes_what_is_local() {
        let config = CONFIG.replace("clients = [\"10.0.0.0/8\"]", "");
        let config = config.split("[[route]]\n        name = \"second\"").next().unwrap();
        let config = parse(config, "gateway.toml").unwrap();
        let baits = baits(&config, 0, 1, "203.0.113.77".parse().unwrap());
        assert!(baits.iter().any(|bait| bait.route == "inside" && bait.domain == "example.com"), "{baits:?}");
    }
}
