//! Routes as `status` shows them: what each is for, where it leads, and what came by it.

use std::collections::BTreeSet;

use crate::config::{Config, OnOpen, Route, RouteKey};
use crate::control::{MessageTotals, RouteStatus};
use crate::observe::counters::MessageOutcome;
use crate::observe::gauges::Sample;
use crate::observe::routes::{RouteTallies, RouteTally};
use crate::policy::relay_guard::Hold;
use crate::route::Routes;

use super::generation::Generation;
use super::view::View;

/// Routes that `status` shows. Metrics have all.
const ROUTES_SHOWN: usize = 100;
/// Names of one kind that are written out, of a route.
const NAMES_SHOWN: usize = 3;

impl View {
    /// In the configuration's order, mail that no route fits behind it; so many at most, and how many more there are.
    pub(super) fn routes(&self, generation: &Generation) -> (Vec<RouteStatus>, u64) {
        let config = &generation.config;
        let tallies = self.tallies(config);
        let Some((own, routes)) = tallies.split_first() else { return (Vec::new(), 0) };
        let shown = config.routes.iter().zip(routes).take(ROUTES_SHOWN).map(|(route, tally)| {
            let pools = route.keys().iter().map(|key| key.backend).collect::<BTreeSet<_>>();
            let pools = if pools.is_empty() { BTreeSet::from([route.backend]) } else { pools };
            status(generation, tally, matches(config, route), pools)
        });
        let mut statuses: Vec<_> = shown.collect();
        let more = u64::try_from(routes.len() - statuses.len()).unwrap_or(u64::MAX);
        statuses.push(status(generation, own, "what no route fits".to_owned(), own_pools(config)));
        (statuses, more)
    }

    pub(super) fn sample_routes(&self, generation: &Generation, samples: &mut Vec<Sample>) {
        self.tallies(&generation.config).iter().for_each(|tally| tally.sample(samples));
    }

    fn tallies(&self, config: &Config) -> RouteTallies {
        self.counters.routes().open(config.routes.iter().map(|route| &*route.name))
    }
}

/// The own backends of listeners where there is a choice.
fn own_pools(config: &Config) -> BTreeSet<usize> {
    let routes = (0..config.listeners.len()).map(|listener| Routes::new(config, listener));
    routes.filter(|routes| routes.pools().len() > 1).map(|routes| routes.pools()[0]).collect()
}

fn status(generation: &Generation, tally: &RouteTally, matches: String, pools: BTreeSet<usize>) -> RouteStatus {
    let Generation { config, backends, .. } = generation;
    let servers: Vec<_> = pools.iter().flat_map(|pool| config.pools[*pool].servers.clone()).collect();
    let states = backends.states();
    let healthy = servers.iter().filter(|server| states[**server].health().healthy).count();
    let hold = pools.iter().map(|pool| backends.pool(*pool).hold()).max().unwrap_or_default();
    let messages = tally.message_totals();
    RouteStatus {
        name: tally.name().to_owned(),
        matches,
        backends: pools.iter().map(|pool| config.pools[*pool].name.clone()).collect(),
        servers: u64::try_from(servers.len()).unwrap_or(u64::MAX),
        healthy: u64::try_from(healthy).unwrap_or(u64::MAX),
        hold: match hold {
            Hold::None => None,
            Hold::Plain => Some(OnOpen::Guard.as_str().to_owned()),
            Hold::Defer => Some(OnOpen::Defer.as_str().to_owned()),
        },
        messages: MessageTotals {
            accepted_total: messages.of(MessageOutcome::Accepted),
            rejected_total: messages.of(MessageOutcome::Rejected),
            deferred_total: messages.of(MessageOutcome::Deferred),
        },
    }
}

/// What a route is for, in short. Mailboxes and users' names are counted, and not shown.
fn matches(config: &Config, route: &Route) -> String {
    let mut parts = Vec::new();
    let keys = |keys: &[RouteKey], is_name: fn(&str) -> bool, (one, several)| {
        let (names, domains): (Vec<_>, Vec<_>) = keys.iter().map(|key| &*key.text).partition(|text| is_name(text));
        let mut parts: Vec<_> = short(domains.into_iter().map(str::to_owned)).into_iter().collect();
        match names.len() {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            count => parts.push(format!("{count} {several}")),
        }
        parts.join(" and ")
    };
    if let Some(file) = &route.file {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        parts.push(format!("{} recipients in {name}", route.recipients.len()));
    } else if !route.recipients.is_empty() {
        parts.push(keys(&route.recipients, |text| text.contains('@'), ("mailbox", "mailboxes")));
    }
    if !route.users.is_empty() {
        let is_name = |text: &str| text.contains('@') || !text.contains('.');
        parts.push(format!("users {}", keys(&route.users, is_name, ("by name", "by name"))));
    }
    let given = [
        ("from", short(route.clients.iter().map(ToString::to_string))),
        ("at", short(route.listeners.iter().map(|listener| config.listeners[*listener].address.to_string()))),
    ];
    parts.extend(given.into_iter().filter_map(|(word, names)| Some(format!("{word} {}", names?))));
    if !route.senders.is_empty() {
        parts.push("of its senders".to_owned());
    }
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

/// The first few.
fn short(names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<_> = names.collect();
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        1..=NAMES_SHOWN => Some(shown),
        count => Some(format!("{shown} and {} more", count - NAMES_SHOWN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn what_a_route_is_for_is_said_in_short_and_names_no_mailbox() {
        let config = parse(
            r#"
            [server]
            hostname = "mx.example.com"
            [[listener]]
            address = "192.0.2.1:25"
            [[listener]]
            address = "192.0.2.1:587"
            service = "submission"
            tls = "off"
            [[backend]]
            address = "192.0.2.25"
            [submission]
            clear_text_networks = ["10.0.0.0/8"]
            [relay]
            local_domains = ["example.com"]
            [[route]]
            recipients = ["boss@example.com", "example.net", ".example.net"]
            backend = "backend"
            [[route]]
            recipients = ["a.test", "b.test", "c.test", "d.test", "e.test"]
            clients = ["10.0.0.0/8"]
            senders = ["partner.test"]
            listeners = ["192.0.2.1:25"]
            backend = "backend"
            [[route]]
            users = ["boss", "user@example.com", "example.org"]
            backend = "backend"
            [[route]]
            backend = "backend"
            "#,
            "gateway.toml",
        )
        .unwrap();
        let said: Vec<_> = config.routes.iter().map(|route| matches(&config, route)).collect();
        let expected = [
            "example.net, .example.net and 1 mailbox",
            "a.test, b.test, c.test and 2 more, from 10.0.0.0/8, at 192.0.2.1:25, of its senders",
            "users example.org and 2 by name",
            "everything",
        ];
        assert_eq!(said, expected);
        // Every listener leads to one backend.
        assert!(own_pools(&config).is_empty());
    }
}
