//! What sources have done lately, and when that is enough for a ban.
//!
//! Every offence costs its source points, and points run out at a steady rate: a source that stays below it is never banned,
//! however long it lives. The score is kept exactly, in integers, so that neither the order nor the spacing of looks at it
//! changes what comes out. Who is banned again is banned for longer.
//!
//! Points are for intent. A mail server does what its users' messages make it do, so whoever has delivered mail lately
//! is charged nothing for what a message can cause; mail that is accepted pays points off; and sessions are counted, not
//! recipients ([`SessionOffences`](crate::policy::offences::SessionOffences)), so that no single message bans anybody.
//!
//! Only what was seen in a session is an offence. A session has a handshake behind it, so nobody can have somebody else
//! banned by forging an address.
//!
//! Whoever has a /48 of IPv6 has 65,536 sources. So each IPv6 source is charged together with its /56 and its /48, which
//! bear more and are banned whole.
//!
//! The room knows neither who may never be banned nor what a ban does. It remembers a bounded number of networks; a new one
//! takes the place of one that has nothing on it, or else of the least remarkable of a few.

mod state;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::Bans;
use crate::identity::Source;
use crate::policy::offences::Offence;
use crate::time::Millis;

pub use state::ReputationState;

/// Each ban lasts this many times as long as the last.
const GROWTH: u32 = 4;
/// Accounts looked at to find one that a new network may have.
const CANDIDATES: usize = 8;
/// Accounts looked at, whenever a network is new, to give back those with nothing on them.
const SWEPT: usize = 2;
/// How long mail that was accepted speaks for its source.
const LATELY: Duration = Duration::from_secs(24 * 3600);
/// What a message that was accepted, or a password that was right, pays off.
const PAID_OFF: u32 = 10;
/// Login names remembered of those that were refused.
const NAMES_KEPT: usize = 4;
/// What a password costs that was refused for a name that was refused before: a phone that was not told the new one.
const SAME_NAME_POINTS: u32 = 1;

/// A network is to be banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanDue {
    /// Who: the source, or a wider network that it and others have misused together.
    pub network: IpNet,
    /// For how long.
    pub length: Duration,
    /// The offence that weighed most.
    pub cause: Offence,
    /// All offences that are not forgotten: `8 × relay attempt, 1 × talk before its turn`.
    pub reason: String,
    /// Which ban of this network it is, from 1.
    pub count: u32,
}

/// How often each offence was committed since the score was last zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally([u8; Offence::ALL.len()]);

/// What is on one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    network: IpNet,
    /// How many times as much as a source it bears.
    breadth: u32,
    /// Points times milliseconds of memory, as of `at`.
    score: u64,
    at: Millis,
    tally: Tally,
    bans: u32,
    banned_until: Millis,
    /// When mail from it was accepted last.
    delivered: Option<Millis>,
    /// Hashes of the names whose passwords were refused last, the latest first; 0 for none.
    names: [u32; NAMES_KEPT],
}

/// What is on whom.
#[derive(Debug)]
pub struct Reputation {
    rules: Bans,
    /// Places in `accounts`.
    index: HashMap<IpNet, usize>,
    accounts: Vec<Account>,
    /// The next account to be looked at when room is made.
    hand: usize,
}

impl Reputation {
    /// Nobody has done anything.
    pub fn new(rules: &Bans) -> Self {
        Self { rules: rules.clone(), index: HashMap::new(), accounts: Vec::new(), hand: 0 }
    }

    /// Other rules from now on. What is on whom stays, in points.
    pub fn set_rules(&mut self, rules: &Bans) {
        self.rescale(memory_ms(&self.rules), memory_ms(rules));
        self.rules = rules.clone();
    }

    /// Scores are points times a memory's time, and that is another one from now on.
    fn rescale(&mut self, old_ms: u64, new_ms: u64) {
        if old_ms == new_ms {
            return;
        }
        for account in &mut self.accounts {
            let score = u128::from(account.score) * u128::from(new_ms) / u128::from(old_ms.max(1));
            account.score = u64::try_from(score).unwrap_or(u64::MAX);
        }
    }

    /// Networks that are remembered.
    pub fn networks(&self) -> usize {
        self.accounts.len()
    }

    /// Charges an offence; the widest network that is to be banned for it. A source that is banned already goes on with
    /// the sessions it has: what those do makes the ban no longer, or one burst in parallel sessions would count as many.
    pub fn charge(&mut self, source: Source, offence: Offence, now: Millis) -> Option<BanDue> {
        self.charge_each(source, offence, now, |_| offence.points())
    }

    /// Charges a refused password. A name that was refused before costs little: it is a phone that was not told the new
    /// password. Many names are a spray. `name` is a hash of the login name.
    pub fn charge_password(&mut self, source: Source, name: u32, now: Millis) -> Option<BanDue> {
        self.charge_each(source, Offence::AuthFailure, now, |account| account.price_of_name(name.max(1)))
    }

    /// Mail from this source was accepted, or its password was right.
    pub fn credit(&mut self, source: Source, delivered: bool, now: Millis) {
        for (network, breadth) in source.breadths() {
            // Who only ever logs in has nothing to pay off.
            if !delivered && !self.index.contains_key(&network) {
                continue;
            }
            let place = self.place_of(network, breadth, now);
            let account = &mut self.accounts[place];
            account.settle(&self.rules, now);
            account.score = account.score.saturating_sub(u64::from(PAID_OFF) * memory_ms(&self.rules));
            if delivered {
                account.delivered = Some(now);
            }
        }
    }

    /// Forgets everything about a network, its bans included.
    pub fn pardon(&mut self, network: IpNet) {
        if let Some(&place) = self.index.get(&network) {
            self.remove(place);
        }
    }

    fn charge_each(
        &mut self,
        source: Source,
        offence: Offence,
        now: Millis,
        price: impl Fn(&mut Account) -> u32,
    ) -> Option<BanDue> {
        let mut widest = None;
        for (network, breadth) in source.breadths() {
            let place = self.place_of(network, breadth, now);
            let account = &mut self.accounts[place];
            if account.is_banned(now) {
                break;
            }
            if offence.can_be_content() && account.has_delivered(now) {
                continue;
            }
            account.settle(&self.rules, now);
            let points = price(account);
            account.score = account.score.saturating_add(u64::from(points) * memory_ms(&self.rules));
            account.tally.add(offence);
            if account.score > account.tolerated(&self.rules) {
                widest = Some(account.sentence(&self.rules, now));
            }
        }
        widest
    }

    fn place_of(&mut self, network: IpNet, breadth: u32, now: Millis) -> usize {
        match self.index.get(&network) {
            Some(&place) => place,
            None => self.open(network, breadth, now),
        }
    }

    fn open(&mut self, network: IpNet, breadth: u32, now: Millis) -> usize {
        self.sweep(now);
        if self.accounts.len() >= self.rules.sources {
            self.evict(now);
        }
        self.accounts.push(Account::new(network, breadth, now));
        self.index.insert(network, self.accounts.len() - 1);
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
        self.index.remove(&gone.network);
        if let Some(moved) = self.accounts.get(place) {
            self.index.insert(moved.network, place);
        }
    }
}

impl Account {
    fn new(network: IpNet, breadth: u32, now: Millis) -> Self {
        Self {
            network,
            breadth,
            score: 0,
            at: now,
            tally: Tally::default(),
            bans: 0,
            banned_until: Millis(0),
            delivered: None,
            names: [0; NAMES_KEPT],
        }
    }

    fn is_banned(&self, now: Millis) -> bool {
        now < self.banned_until
    }

    fn has_delivered(&self, now: Millis) -> bool {
        self.delivered.is_some_and(|delivered| now < delivered.after(LATELY))
    }

    /// Points that are forgotten in a memory's time.
    fn threshold(&self, rules: &Bans) -> u64 {
        u64::from(rules.threshold) * u64::from(self.breadth)
    }

    /// The highest score that is no ban. Points are counted as people do, a part of one as a whole: ten offences of ten
    /// points are a hundred, though a little of the first has run out when the last is committed.
    fn tolerated(&self, rules: &Bans) -> u64 {
        memory_ms(rules).saturating_mul(self.threshold(rules).saturating_sub(1))
    }

    fn score(&self, rules: &Bans, now: Millis) -> u64 {
        self.score.saturating_sub(now.since(self.at).saturating_mul(self.threshold(rules)))
    }

    /// Brings the account up to now.
    fn settle(&mut self, rules: &Bans, now: Millis) {
        self.score = self.score(rules, now);
        self.at = self.at.max(now);
        if self.score == 0 {
            self.tally = Tally::default();
            self.names = [0; NAMES_KEPT];
        }
        if self.has_behaved(rules, now) {
            self.bans = 0;
        }
    }

    fn price_of_name(&mut self, name: u32) -> u32 {
        let known = self.names.iter().position(|kept| *kept == name);
        self.names[..=known.unwrap_or(NAMES_KEPT - 1)].rotate_right(1);
        self.names[0] = name;
        if known.is_some() { SAME_NAME_POINTS } else { Offence::AuthFailure.points() }
    }

    /// Whether the last ban is so long over that it does not count any more.
    fn has_behaved(&self, rules: &Bans, now: Millis) -> bool {
        self.bans == 0 || now >= self.banned_until.after(rules.maximum)
    }

    fn is_clean(&self, rules: &Bans, now: Millis) -> bool {
        self.score(rules, now) == 0 && self.has_behaved(rules, now) && !self.has_delivered(now)
    }

    /// The lower, the less is lost with this account.
    fn standing(&self, rules: &Bans, now: Millis) -> (bool, u32, bool, u64) {
        (self.is_banned(now), self.bans, self.has_delivered(now), self.score(rules, now))
    }

    fn sentence(&mut self, rules: &Bans, now: Millis) -> BanDue {
        let length = rules.first.saturating_mul(GROWTH.saturating_pow(self.bans)).min(rules.maximum);
        let (cause, reason) = (self.tally.heaviest(), self.tally.to_string());
        self.bans = self.bans.saturating_add(1);
        self.banned_until = now.after(length);
        self.score = 0;
        self.tally = Tally::default();
        BanDue { network: self.network, length, cause, reason, count: self.bans }
    }
}

impl Tally {
    fn add(&mut self, offence: Offence) {
        let count = &mut self.0[offence.index()];
        *count = count.saturating_add(1);
    }

    fn committed(&self) -> impl Iterator<Item = (Offence, u8)> {
        Offence::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    fn heaviest(&self) -> Offence {
        let weight = |&(offence, count): &(Offence, u8)| offence.points() * u32::from(count);
        self.committed().max_by_key(weight).map_or(Offence::RelayAttempt, |(offence, _)| offence)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (offence, count)) in self.committed().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{count}")?;
            if count == u8::MAX {
                f.write_char('+')?;
            }
            write!(f, " × {offence}")?;
        }
        Ok(())
    }
}

fn memory_ms(rules: &Bans) -> u64 {
    u64::try_from(rules.memory.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
