//! Sets of mail domains, such as those the backend receives mail for.
//!
//! Names are compared as [`labels`](super::labels) says: a name that must first be folded is no domain here, even if it folds
//! onto a local one.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashSet;

use super::address::{Domain, parse_literal};
use super::labels::a_labels;

/// Exact domains, `.suffix` entries and address literals. There may be half a million, so those who have the same share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainSet(Arc<Entries>);

/// What strangers write is looked up here and never put in, so the hash need only be a fast one; it is keyed all the same.
#[derive(Clone, Default, PartialEq, Eq)]
struct Entries {
    exact: HashSet<Box<str>>,
    /// Without the leading dot.
    suffixes: HashSet<Box<str>>,
    literals: HashSet<IpAddr>,
}

/// In an order of their own: the same entries are the same text.
impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exact, suffixes, literals } = self;
        let sorted = |names: &HashSet<Box<str>>| names.iter().cloned().collect::<BTreeSet<_>>();
        f.debug_struct("Entries")
            .field("exact", &sorted(exact))
            .field("suffixes", &sorted(suffixes))
            .field("literals", &literals.iter().collect::<BTreeSet<_>>())
            .finish()
    }
}

/// Whether a domain is in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is in the set, itself or by a suffix.
    Local,
    /// A domain, and not in the set.
    Foreign,
    /// No domain name at all.
    Invalid,
}

/// Why an entry is no domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no domain; write `example.com`, `.example.com` for all its subdomains, or `[192.0.2.1]`")]
pub struct DomainEntryError(String);

impl DomainSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is local.
    pub fn is_empty(&self) -> bool {
        let Entries { exact, suffixes, literals } = &*self.0;
        exact.is_empty() && suffixes.is_empty() && literals.is_empty()
    }

    /// Every domain that is a member itself, not by a `.suffix`; by name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.exact.iter().map(|name| &**name).collect::<BTreeSet<_>>().into_iter()
    }

    /// The first domain by name that is a member itself, not by a `.suffix`.
    pub fn first(&self) -> Option<&str> {
        self.0.exact.iter().map(|name| &**name).min()
    }

    /// Adds `example.com`, `.example.com` (every subdomain, not itself) or `[192.0.2.1]`.
    ///
    /// # Errors
    /// The entry is no domain and no address literal; the set is as it was.
    pub fn insert(&mut self, entry: &str) -> Result<(), DomainEntryError> {
        let error = || DomainEntryError(entry.to_owned());
        if let Some(content) = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let Some(Domain::Literal(address)) = parse_literal(content) else { return Err(error()) };
            Arc::make_mut(&mut self.0).literals.insert(address.to_canonical());
            return Ok(());
        }
        let suffix = entry.strip_prefix('.');
        let name = a_labels(suffix.unwrap_or(entry)).filter(|name| name.split('.').all(is_label)).ok_or_else(error)?;
        let Entries { exact, suffixes, .. } = Arc::make_mut(&mut self.0);
        let names = if suffix.is_some() { suffixes } else { exact };
        names.insert(name.into());
        Ok(())
    }

    /// Whether mail for `domain` is local.
    pub fn contains(&self, domain: &Domain<'_>) -> Membership {
        let Entries { exact, suffixes, literals } = &*self.0;
        let name = match domain {
            Domain::Name(name) => name,
            Domain::Literal(address) if literals.contains(&address.to_canonical()) => return Membership::Local,
            Domain::Literal(_) | Domain::GeneralLiteral(_) => return Membership::Foreign,
        };
        let Some(name) = a_labels(name) else { return Membership::Invalid };
        if exact.contains(&*name) || parents(&name).any(|parent| suffixes.contains(parent)) {
            Membership::Local
        } else {
            Membership::Foreign
        }
    }
}

/// `a.b.c` → `b.c`, `c`.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent)).skip(1)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[&str]) -> DomainSet {
        let mut set = DomainSet::new();
        for entry in entries {
            set.insert(entry).unwrap();
        }
        set
    }

    #[test]
    fn membership() {
        let set = set(&["example.com", ".example.net", "bücher.example", "[192.0.2.1]", "local.test"]);
        for (domain, expected) in [
            ("example.com", Membership::Local),
            ("Example.COM", Membership::Local),
            ("sub.example.com", Membership::Foreign),
            ("notexample.com", Membership::Foreign),
            ("example.net", Membership::Foreign),
            ("a.example.net", Membership::Local),
            ("a.b.Example.net", Membership::Local),
            ("aexample.net", Membership::Foreign),
            ("bücher.example", Membership::Local),
            ("BÜCHER.example", Membership::Local),
            ("xn--bcher-kva.example", Membership::Local),
            ("XN--BCHER-KVA.example", Membership::Local),
            ("ｌｏcal.test", Membership::Invalid),
            ("local。test", Membership::Invalid),
            ("lo\u{ad}cal.test", Membership::Invalid),
            ("loca\u{212a}.test", Membership::Invalid),
            ("\u{212a}ocal.test", Membership::Invalid),
            ("loc\u{e5}l.\u{212b}.test", Membership::Invalid),
            ("b\u{85}.test", Membership::Invalid),
            ("b\u{202e}.test", Membership::Invalid),
            ("example.com.", Membership::Invalid),
            ("example..com", Membership::Invalid),
        ] {
            assert_eq!(set.contains(&Domain::Name(domain)), expected, "{domain}");
        }
        let literal = |text: &str| set.contains(&Domain::Literal(text.parse().unwrap()));
        assert_eq!(literal("192.0.2.1"), Membership::Local);
        assert_eq!(literal("::ffff:192.0.2.1"), Membership::Local);
        assert_eq!(literal("192.0.2.2"), Membership::Foreign);
    }

    #[test]
    fn entries_that_are_no_domains() {
        for entry in [
            "",
            ".",
            "a..b",
            "example.com.",
            "user@example.com",
            "exam ple.com",
            "[192.0.2.256]",
            "*.example.com",
            "-a.example",
        ] {
            assert!(DomainSet::new().insert(entry).is_err(), "{entry:?}");
        }
    }
}
