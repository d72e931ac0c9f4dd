//! What sources have done lately, and when that is enough for a ban.
//!
//! Every finding costs its source points, and points run out at a steady rate: a source that stays below it is never banned,
//! however long it lives. The score is kept exactly, in integers, so that neither the order nor the spacing of looks at it
//! changes what comes out. Who is banned again is banned for longer.
//!
//! Only what was seen in a session is a finding. A session has a handshake behind it, so nobody can have somebody else
//! banned by forging an address.
//!
//! The room knows neither who may never be banned nor what a ban does. It remembers a bounded number of sources; a new one
//! takes the place of one that has nothing on it, or else of the least remarkable of a few.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::config::Bans;
use crate::identity::Source;
use crate::time::Millis;

/// Each ban lasts this many times as long as the last.
const GROWTH: u32 = 4;
/// Accounts looked at to find one that a new source may have.
const CANDIDATES: usize = 8;
/// Accounts looked at, whenever a source is new, to give back those with nothing on them.
const SWEPT: usize = 2;

/// Something a session saw a client do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Finding {
    /// A recipient that the relay guard refused.
    RelayAttempt,
    /// Talk before the greeting, or a body before 354.
    EarlyTalk,
    /// A bare CR or LF in a message, which is how messages are smuggled.
    BareNewline,
    /// XCLIENT, XFORWARD or PROXY.
    IdentityClaim,
    /// A session that ended because too many of its commands were refused.
    TooManyErrors,
    /// A session that ended because its commands brought no mail.
    TooManyCommands,
    /// A line or a message that went on far past its limit.
    Flood,
    /// Credentials that were refused.
    AuthFailure,
}

impl Finding {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RelayAttempt,
        Self::EarlyTalk,
        Self::BareNewline,
        Self::IdentityClaim,
        Self::TooManyErrors,
        Self::TooManyCommands,
        Self::Flood,
        Self::AuthFailure,
    ];

    /// Its points. What an honest but clumsy client may do a few times an hour costs a tenth of the usual threshold; what
    /// no mail server does costs a quarter or more.
    pub fn points(self) -> u32 {
        match self {
            Self::RelayAttempt | Self::BareNewline | Self::AuthFailure => 10,
            Self::TooManyCommands => 20,
            Self::EarlyTalk | Self::IdentityClaim => 25,
            Self::TooManyErrors => 40,
            Self::Flood => 50,
        }
    }

    /// For logs and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RelayAttempt => "relay attempt",
            Self::EarlyTalk => "talk before its turn",
            Self::BareNewline => "bare newline in a message",
            Self::IdentityClaim => "claim to be somebody else",
            Self::TooManyErrors => "session of errors",
            Self::TooManyCommands => "session without mail",
            Self::Flood => "flood",
            Self::AuthFailure => "refused password",
        }
    }

    fn index(self) -> usize {
        usize::from(self as u8)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A source is to be banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// For how long.
    pub length: Duration,
    /// The findings that weighed most.
    pub cause: Finding,
    /// All findings that are not forgotten: `8 × relay attempt, 1 × talk before its turn`.
    pub reason: String,
    /// Which ban of this source it is, from 1.
    pub offence: u32,
}

/// How often each finding was made since the score was last zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally([u8; Finding::ALL.len()]);

/// What is on one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    source: Source,
    /// Points times milliseconds of memory, as of `at`.
    score: u64,
    at: Millis,
    tally: Tally,
    offences: u32,
    banned_until: Millis,
}

/// What is on whom.
#[derive(Debug)]
pub struct Reputation {
    rules: Bans,
    /// Places in `accounts`.
    index: HashMap<Source, usize>,
    accounts: Vec<Account>,
    /// The next account to be looked at when room is made.
    hand: usize,
}

impl Reputation {
    /// Nobody has done anything.
    pub fn new(rules: &Bans) -> Self {
        Self { rules: rules.clone(), index: HashMap::new(), accounts: Vec::new(), hand: 0 }
    }

    /// Sources that are remembered.
    pub fn sources(&self) -> usize {
        self.accounts.len()
    }

    /// Files a finding. A source that is banned already goes on with the sessions it has: what those do makes the ban no
    /// longer, or one burst in parallel sessions would count as many offences.
    pub fn file(&mut self, source: Source, finding: Finding, now: Millis) -> Option<Sentence> {
        let place = match self.index.get(&source) {
            Some(&place) => place,
            None => self.open(source, now),
        };
        let account = &mut self.accounts[place];
        if account.is_banned(now) {
            return None;
        }
        account.settle(&self.rules, now);
        account.score = account.score.saturating_add(u64::from(finding.points()) * memory_ms(&self.rules));
        account.tally.add(finding);
        (account.score > tolerated(&self.rules)).then(|| account.sentence(&self.rules, now))
    }

    /// Forgets everything about a source, its offences included.
    pub fn pardon(&mut self, source: Source) {
        if let Some(&place) = self.index.get(&source) {
            self.remove(place);
        }
    }

    fn open(&mut self, source: Source, now: Millis) -> usize {
        self.sweep(now);
        if self.accounts.len() >= self.rules.sources {
            self.evict(now);
        }
        self.accounts.push(Account::new(source, now));
        self.index.insert(source, self.accounts.len() - 1);
        self.accounts.len() - 1
    }

    /// Every newcomer pays for a look at a few others, so that no call ever looks at all of them.
    fn sweep(&mut self, now: Millis) {
        for _ in 0..SWEPT {
            let Some(place) = self.next_place() else { return };
            if self.accounts[place].is_clean(&self.rules, now) {
                self.remove(place);
            }
        }
    }

    fn evict(&mut self, now: Millis) {
        let mut least = None;
        for _ in 0..CANDIDATES {
            let Some(place) = self.next_place() else { return };
            let standing = self.accounts[place].standing(&self.rules, now);
            if least.is_none_or(|(_, other)| standing < other) {
                least = Some((place, standing));
            }
        }
        if let Some((place, _)) = least {
            self.remove(place);
        }
    }

    fn next_place(&mut self) -> Option<usize> {
        self.hand = if self.hand + 1 < self.accounts.len() { self.hand + 1 } else { 0 };
        (self.hand < self.accounts.len()).then_some(self.hand)
    }

    fn remove(&mut self, place: usize) {
        let gone = self.accounts.swap_remove(place);
        self.index.remove(&gone.source);
        if let Some(moved) = self.accounts.get(place) {
            self.index.insert(moved.source, place);
        }
    }
}

impl Account {
    fn new(source: Source, now: Millis) -> Self {
        Self { source, score: 0, at: now, tally: Tally::default(), offences: 0, banned_until: Millis(0) }
    }

    fn is_banned(&self, now: Millis) -> bool {
        now < self.banned_until
    }

    fn score(&self, rules: &Bans, now: Millis) -> u64 {
        self.score.saturating_sub(now.since(self.at).saturating_mul(u64::from(rules.threshold)))
    }

    /// Brings the account up to now.
    fn settle(&mut self, rules: &Bans, now: Millis) {
        self.score = self.score(rules, now);
        self.at = self.at.max(now);
        if self.score == 0 {
            self.tally = Tally::default();
        }
        if self.has_behaved(rules, now) {
            self.offences = 0;
        }
    }

    /// Whether the last ban is so long over that it does not count any more.
    fn has_behaved(&self, rules: &Bans, now: Millis) -> bool {
        self.offences == 0 || now >= self.banned_until.after(rules.maximum)
    }

    fn is_clean(&self, rules: &Bans, now: Millis) -> bool {
        self.score(rules, now) == 0 && self.has_behaved(rules, now)
    }

    /// The lower, the less is lost with this account.
    fn standing(&self, rules: &Bans, now: Millis) -> (bool, u32, u64) {
        (self.is_banned(now), self.offences, self.score(rules, now))
    }

    fn sentence(&mut self, rules: &Bans, now: Millis) -> Sentence {
        let length = rules.first.saturating_mul(GROWTH.saturating_pow(self.offences)).min(rules.maximum);
        let (cause, reason) = (self.tally.heaviest(), self.tally.to_string());
        self.offences = self.offences.saturating_add(1);
        self.banned_until = now.after(length);
        self.score = 0;
        self.tally = Tally::default();
        Sentence { length, cause, reason, offence: self.offences }
    }
}

impl Tally {
    fn add(&mut self, finding: Finding) {
        let count = &mut self.0[finding.index()];
        *count = count.saturating_add(1);
    }

    fn made(&self) -> impl Iterator<Item = (Finding, u8)> {
        Finding::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    fn heaviest(&self) -> Finding {
        let weight = |&(finding, count): &(Finding, u8)| finding.points() * u32::from(count);
        self.made().max_by_key(weight).map_or(Finding::RelayAttempt, |(finding, _)| finding)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (finding, count)) in self.made().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{count}")?;
            if count == u8::MAX {
                f.write_char('+')?;
            }
            write!(f, " × {finding}")?;
        }
        Ok(())
    }
}

fn memory_ms(rules: &Bans) -> u64 {
    u64::try_from(rules.memory.as_millis()).unwrap_or(u64::MAX)
}

/// The highest score that is no ban. Points are counted as people do, a part of one as a whole: ten findings of ten points
/// are a hundred, though a little of the first has run out when the last is made.
fn tolerated(rules: &Bans) -> u64 {
    memory_ms(rules).saturating_mul(u64::from(rules.threshold.saturating_sub(1)))
}

#[cfg(test)]
mod tests;
