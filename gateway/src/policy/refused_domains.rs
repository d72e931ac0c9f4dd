//! Which domains recipients are refused in most often: a domain of the administrator's own that `relay.local_domains` lacks
//! stands out there.
//!
//! A bounded count of an unbounded stream (the Space-Saving algorithm): a domain that is new takes the place, and the count,
//! of the one that was refused least, so that what is refused often is always among those kept.

use crate::time::Millis;

/// Domains that are kept.
const KEPT: usize = 128;

/// A domain, and how often recipients in it were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDomain {
    /// In lower case.
    pub domain: Box<str>,
    /// Recipients refused, at least.
    pub count: u64,
    /// When the last was.
    pub last: Millis,
}

#[derive(Debug)]
struct Entry {
    domain: Box<str>,
    count: u64,
    /// What `count` may hold of others.
    inherited: u64,
    last: Millis,
}

/// How often recipients in which domain were refused; bounded, so that rare ones give way to new ones.
#[derive(Debug, Default)]
pub struct RefusedDomains(Vec<Entry>);

impl RefusedDomains {
    /// A recipient in this domain was refused.
    pub fn count(&mut self, domain: &str, now: Millis) {
        let Self(entries) = self;
        if let Some(entry) = entries.iter_mut().find(|entry| entry.domain.eq_ignore_ascii_case(domain)) {
            entry.count += 1;
            entry.last = now;
            return;
        }
        let domain = domain.to_ascii_lowercase().into_boxed_str();
        if entries.len() < KEPT {
            entries.push(Entry { domain, count: 1, inherited: 0, last: now });
        } else if let Some(least) = entries.iter_mut().min_by_key(|entry| entry.count) {
            *least = Entry { domain, count: least.count + 1, inherited: least.count, last: now };
        }
    }

    /// Those that were refused most often for certain, the first most often.
    pub fn top(&self, most: usize) -> Vec<RefusedDomain> {
        let Self(entries) = self;
        let domain = |entry: &Entry| RefusedDomain {
            domain: entry.domain.clone(),
            count: entry.count - entry.inherited,
            last: entry.last,
        };
        let mut top: Vec<_> = entries.iter().map(domain).collect();
        top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.domain.cmp(&b.domain)));
        top.truncate(most);
        top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One domain of the administrator's own, refused now and then beside strangers that each come once.
    #[test]
    fn what_is_refused_often_stands_out_of_a_flood() {
        let mut domains = RefusedDomains::default();
        for number in 0..100_000_u32 {
            domains.count(&format!("host{number}.test"), Millis(u64::from(number)));
            if number % 100 == 0 {
                domains.count("Mail.Example.com", Millis(u64::from(number)));
            }
            assert!(domains.0.len() <= KEPT);
        }
        let top = domains.top(3);
        assert_eq!((&*top[0].domain, top[0].last), ("mail.example.com", Millis(99_900)));
        assert!((900..=1000).contains(&top[0].count), "{}", top[0].count);
        assert!(top[1].count <= 1 && top.len() == 3);
    }
}
