//! `[[route]]`: mail that goes to another backend than its listener's. How it is read is `read_route`'s.

use std::path::PathBuf;

use ipnet::IpNet;

use super::addresses::network;
use super::declare::{Each, Maybe, table};
use super::endpoints::plain_name;
use super::tls::path;
use super::values::boolean;
use crate::smtp::domains::DomainSet;

/// As many as sessions can tell apart; recipients in files are not counted.
pub const ROUTES_MAX: usize = 65_000;

table! {
    /// `[[route]]`: all that it names must hold, of each list one.
    pub struct Route {
        /// Its name in metrics and status.
        name: String = String::new(), |value: &toml::de::DeValue<'_>| plain_name(value, "customers", "route");
        /// Where clients come from; none for everywhere.
        clients: Vec<IpNet> = Vec::new(), Each(network);
        /// Whether the domains that it names are local ones too.
        local: bool = false, boolean;
        /// Where its recipients stand, if not here.
        file: Option<PathBuf> = None, Maybe(path);
    } and {
        /// Domains, `.suffix` entries and mailboxes, as [`recipient_keys`](super::recipient_keys) writes them; none for all.
        recipients: Vec<RouteKey> = Vec::new();
        /// Who has logged in, as [`user_keys`](super::user_keys) writes it. Not empty: the route is for submission listeners,
        /// and else for the others.
        users: Vec<RouteKey> = Vec::new();
        /// The sender's domain; none for all, also for mail without a sender.
        senders: DomainSet = DomainSet::new();
        /// Indices into `Config::listeners`; none for all.
        listeners: Vec<usize> = Vec::new();
        /// Index into `Config::pools`, for what names none of its own.
        backend: usize = 0;
        /// The line of the configuration where it begins.
        line: Line = Line(0);
    }
}

/// One recipient or user of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKey {
    /// As a look-up writes it.
    pub text: String,
    /// Index into `Config::pools`.
    pub backend: usize,
    /// The line of the route's file; 0 if it stands in the configuration.
    pub line: usize,
}

/// A line of the configuration. Where something stands is no part of what is configured: all lines are equal.
#[derive(Debug, Clone, Copy)]
pub struct Line(pub usize);

impl PartialEq for Line {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Route {
    /// What it goes by: users, or else recipients.
    pub fn keys(&self) -> &[RouteKey] {
        if self.users.is_empty() { &self.recipients } else { &self.users }
    }

    /// Where it stands, or this line of its file: `line 5`, `line 5 of customers.txt`.
    pub fn place(&self, line: Option<usize>) -> String {
        match (&self.file, line) {
            (Some(file), Some(line)) => format!("line {line} of {}", file.display()),
            _ => format!("line {}", self.line.0),
        }
    }
}
