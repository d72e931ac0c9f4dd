//! What came by each route, where there are routes: counted by name, so that a reload and an upgrade count on.
//!
//! All workers write the same numbers: a message is rare beside the bytes that it is made of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::NO_ROUTE;

use super::counts::Counts;
use super::declare::{Declaration, Label, label};
use super::gauges::{ROUTE_MESSAGES, ROUTE_NOT_TAKEN, ROUTE_SESSIONS, Sample, number};
use super::numbers::{Counter, Family, FamilyTotals};
use super::outcome::MessageOutcome;

label! {
    /// Why a recipient was not taken.
    NotTaken {
        /// The backend refused it, for now or for good.
        Refused = "refused",
        /// It was told to come in a message of its own: the one before it goes another way.
        Parted = "parted",
        /// The backend was found to relay, and gets nothing until that is mended.
        Held = "held",
        /// The backend could not be asked.
        Unavailable = "unavailable",
    }
}

/// What came by one route.
#[derive(Debug, Default)]
pub struct RouteTally {
    name: Box<str>,
    /// Messages by how they ended.
    pub messages: Family<MessageOutcome>,
    /// Recipients that were not taken.
    pub not_taken: Family<NotTaken>,
    /// Sessions that took it last.
    pub sessions: Counter,
}

/// Those of one configuration: mail that no route fits, and behind it each route, in its order. Empty where there are none.
pub type RouteTallies = Arc<[Arc<RouteTally>]>;

/// What came by any route, by name.
#[derive(Debug, Clone, Default)]
pub struct RouteBook(Arc<Mutex<BTreeMap<Box<str>, Arc<RouteTally>>>>);

impl RouteTally {
    fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The route's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Messages so far.
    pub fn message_totals(&self) -> FamilyTotals<MessageOutcome> {
        totals(&self.messages)
    }

    /// Its numbers for monitoring.
    pub fn sample(&self, samples: &mut Vec<Sample>) {
        sample(&ROUTE_MESSAGES, &self.name, &self.messages, samples);
        sample(&ROUTE_NOT_TAKEN, &self.name, &self.not_taken, samples);
        samples.push(Sample::labelled(&ROUTE_SESSIONS, [&*self.name], number(self.sessions.value())));
    }
}

impl RouteBook {
    /// The tallies of routes with these names, with what was counted under them. What no configuration has any more is
    /// forgotten, once the sessions that took it are over.
    pub fn open<'a>(&self, names: impl Iterator<Item = &'a str>) -> RouteTallies {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = names.peekable();
        let own = names.peek().map(|_| NO_ROUTE);
        let tally = |name| book.entry(Box::from(name)).or_insert_with(|| Arc::new(RouteTally::new(name))).clone();
        let tallies: RouteTallies = own.into_iter().chain(names).map(tally).collect();
        book.retain(|_, tally| Arc::strong_count(tally) > 1);
        tallies
    }

    /// Adds all of it, for another process.
    pub(super) fn add_to(&self, counts: &mut Counts) {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for RouteTally { name, messages, not_taken, sessions } in book.values().map(|tally| &**tally) {
            hand_over(&ROUTE_MESSAGES, name, messages, counts);
            hand_over(&ROUTE_NOT_TAKEN, name, not_taken, counts);
            counts.set(ROUTE_SESSIONS.name, name.to_string(), sessions.value());
        }
    }

    /// Adds what another process counted.
    pub(super) fn absorb(&self, counts: &Counts) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut each = |declaration: &Declaration, add: &dyn Fn(&RouteTally, &str, u64)| {
            for (label, count) in counts.labels(declaration.name) {
                let (name, value) = label.split_once(' ').unwrap_or((label, ""));
                let tally = book.entry(name.into()).or_insert_with(|| Arc::new(RouteTally::new(name)));
                add(tally, value, count);
            }
        };
        each(&ROUTE_MESSAGES, &|tally, value, count| take_over(&tally.messages, value, count));
        each(&ROUTE_NOT_TAKEN, &|tally, value, count| take_over(&tally.not_taken, value, count));
        each(&ROUTE_SESSIONS, &|tally, _, count| tally.sessions.add(count));
    }
}

fn totals<L: Label>(family: &Family<L>) -> FamilyTotals<L> {
    let mut totals = FamilyTotals::default();
    totals.add(family);
    totals
}

fn sample<L: Label>(of: &'static Declaration, name: &str, family: &Family<L>, samples: &mut Vec<Sample>) {
    let totals = totals(family);
    samples.extend(L::ALL.iter().map(|value| Sample::labelled(of, [name, value.as_str()], number(totals.of(*value)))));
}

/// A route's name has no blank in it.
fn hand_over<L: Label>(of: &Declaration, name: &str, family: &Family<L>, counts: &mut Counts) {
    let totals = totals(family);
    for value in L::ALL {
        counts.set(of.name, format!("{name} {}", value.as_str()), totals.of(*value));
    }
}

fn take_over<L: Label>(family: &Family<L>, value: &str, count: u64) {
    // Another version may know others.
    if let Some(label) = L::ALL.iter().find(|label| label.as_str() == value) {
        family.add(*label, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tallies: &RouteTallies) -> Vec<(String, f64)> {
        let mut samples = Vec::new();
        tallies.iter().for_each(|tally| tally.sample(&mut samples));
        let counted = samples.into_iter().filter(|sample| sample.value > 0.0);
        counted.map(|sample| (sample.labels.join(" "), sample.value)).collect()
    }

    #[test]
    fn without_routes_there_is_nothing_to_count() {
        let book = RouteBook::default();
        assert!(book.open([].into_iter()).is_empty());
        let mut counts = Counts::default();
        book.add_to(&mut counts);
        assert!(counts.is_empty());
    }

    #[test]
    fn a_route_counts_on_as_long_as_a_configuration_or_a_session_has_it() {
        let book = RouteBook::default();
        let first = book.open(["a", "b"].into_iter());
        assert_eq!(first.iter().map(|tally| tally.name()).collect::<Vec<_>>(), [NO_ROUTE, "a", "b"]);
        first[2].messages.increment(MessageOutcome::Accepted);
        first[1].messages.increment(MessageOutcome::Rejected);
        let session = first[1].clone();
        drop(first);
        let second = book.open(["b"].into_iter());
        assert_eq!(numbers(&second), [("b accepted".to_owned(), 1.0)]);
        session.messages.increment(MessageOutcome::Rejected);
        assert_eq!(numbers(&book.open(["a"].into_iter())), [("a rejected".to_owned(), 2.0)]);
        drop((session, second));
        book.open([].into_iter());
        assert_eq!(numbers(&book.open(["a", "b"].into_iter())), []);
    }

    #[test]
    fn another_process_counts_on() {
        let old = RouteBook::default();
        let tallies = old.open(["a"].into_iter());
        tallies[1].messages.add(MessageOutcome::Deferred, 3);
        tallies[1].not_taken.increment(NotTaken::Parted);
        tallies[0].sessions.add(7);
        let mut counts = Counts::default();
        old.add_to(&mut counts);
        let new = RouteBook::default();
        let own = new.open(["a"].into_iter());
        own[1].messages.increment(MessageOutcome::Deferred);
        new.absorb(&counts);
        new.absorb(&serde_json::from_str(r#"{"route_messages_total":{"a odd":1,"b accepted":2}}"#).unwrap());
        let expected = [("none", 7.0), ("a deferred", 4.0), ("a parted", 1.0)];
        assert_eq!(numbers(&own), expected.map(|(labels, value)| (labels.to_owned(), value)));
        // Nobody here has this one.
        let other = new.open(["b"].into_iter());
        assert_eq!(numbers(&other)[1..], [("b accepted".to_owned(), 2.0)]);
    }
}
