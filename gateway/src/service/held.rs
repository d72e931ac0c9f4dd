//! Servers that were found to relay for strangers, and left before a proof has shown that they no longer do. One that comes back,
//! because DNS or the configuration names it again, is held as it was: going away mends nothing.

use crate::config::{self, Config, HostPort};
use crate::policy::relay_guard::Hold;
use crate::proof::{LastProof, ProofRecord};

/// How many are remembered, the last that left.
const HELD_MAX: usize = 1024;

/// Those that may come back.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldServers(Vec<HeldServer>);

/// One of them. It is known by its name, and within its backend by its address: DNS may name it otherwise.
#[derive(Debug, Clone)]
pub(super) struct HeldServer {
    name: String,
    /// The `[[backend]]`'s name, and where it was; `None` if another process knew it.
    place: Option<(String, HostPort)>,
    pub(super) hold: Hold,
    pub(super) proof: ProofRecord,
}

impl HeldServers {
    /// Remembers this one, if it is held.
    pub(super) fn add(&mut self, server: &config::Backend, config: &Config, hold: Hold, proof: &ProofRecord) {
        if hold != Hold::None {
            let place = Some(place(server, config));
            self.push(HeldServer { name: server.name.clone(), place, hold, proof: proof.clone() });
        }
    }

    /// Remembers one that another process knew.
    pub(super) fn adopt(&mut self, name: String, last: LastProof, hold: Hold) {
        let proof = ProofRecord::default();
        proof.adopt(last);
        self.push(HeldServer { name, place: None, hold, proof });
    }

    fn push(&mut self, server: HeldServer) {
        self.0.retain(|known| known.name != server.name);
        if self.0.len() == HELD_MAX {
            self.0.remove(0);
        }
        self.0.push(server);
    }

    /// What is remembered of this server.
    pub(super) fn find(&self, server: &config::Backend, config: &Config) -> Option<&HeldServer> {
        self.0.iter().find(|known| known.is(server, config))
    }

    /// Those that are there know for themselves what they may be given.
    pub(super) fn forget(&mut self, config: &Config) {
        self.0.retain(|known| !config.backends.iter().any(|server| known.is(server, config)));
    }

    /// Their names, and what the relay proof found, for another process.
    pub(super) fn proofs(&self) -> impl Iterator<Item = (String, LastProof)> {
        self.0.iter().map(|known| (known.name.clone(), known.proof.last()))
    }
}

impl HeldServer {
    fn is(&self, server: &config::Backend, config: &Config) -> bool {
        self.name == server.name || self.place.as_ref().is_some_and(|known| *known == place(server, config))
    }
}

fn place(server: &config::Backend, config: &Config) -> (String, HostPort) {
    (config.pools[server.pool].name.clone(), server.address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_remembered_than_there_may_be() {
        let mut held = HeldServers::default();
        for number in 0..HELD_MAX + 2 {
            held.adopt(number.to_string(), ProofRecord::default().last(), Hold::Plain);
        }
        let names: Vec<_> = held.proofs().map(|(name, _)| name).collect();
        assert_eq!((names.len(), &*names[0]), (HELD_MAX, "2"));
    }
}
