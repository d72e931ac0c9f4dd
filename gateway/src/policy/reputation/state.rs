//! What is on whom, on its way to another process of the same gateway.
//!
//! Times are of the machine's clock, which both have; offences go by their names, so that another version knows them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::offences::Offence;
use crate::time::Millis;

use super::{Account, NAMES_KEPT, Reputation, Tally, memory_ms};

/// All accounts that have something on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReputationState {
    /// `bans.memory`, of which scores are made, in milliseconds.
    memory_ms: u64,
    pub(super) accounts: Vec<AccountState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccountState {
    network: IpNet,
    breadth: u32,
    score: u64,
    at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    offences: Vec<(String, u8)>,
    bans: u32,
    banned_until: u64,
    delivered: Option<u64>,
    names: [u32; NAMES_KEPT],
}

impl Reputation {
    /// As it stands.
    pub fn state(&self, now: Millis) -> ReputationState {
        let accounts = self.accounts.iter().filter(|account| !account.is_clean(&self.rules, now));
        ReputationState { memory_ms: memory_ms(&self.rules), accounts: accounts.map(AccountState::of).collect() }
    }

    /// Goes on from there, in place of what is known.
    pub fn adopt(&mut self, state: ReputationState) {
        let ReputationState { memory_ms, accounts } = state;
        let accounts = accounts.into_iter().take(self.rules.sources).map(AccountState::account);
        self.accounts = accounts.collect();
        self.index = self.accounts.iter().enumerate().map(|(place, account)| (account.network, place)).collect();
        self.hand = 0;
        self.rescale(memory_ms, super::memory_ms(&self.rules));
    }
}

impl AccountState {
    fn of(account: &Account) -> Self {
        let Account { network, breadth, score, at, tally, bans, banned_until, delivered, names } = *account;
        Self {
            network,
            breadth,
            score,
            at: at.0,
            offences: tally.committed().map(|(offence, count)| (offence.as_str().to_owned(), count)).collect(),
            bans,
            banned_until: banned_until.0,
            delivered: delivered.map(|at| at.0),
            names,
        }
    }

    fn account(self) -> Account {
        let Self { network, breadth, score, at, offences, bans, banned_until, delivered, names } = self;
        let mut tally = Tally::default();
        for (name, count) in offences {
            if let Some(offence) = Offence::ALL.into_iter().find(|offence| offence.as_str() == name) {
                tally.0[offence.index()] = count;
            }
        }
        Account {
            network,
            breadth,
            score,
            at: Millis(at),
            tally,
            bans,
            banned_until: Millis(banned_until),
            delivered: delivered.map(Millis),
            names,
        }
    }
}
