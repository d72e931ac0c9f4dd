//! The backends of the running gateway. Each is one whole: its configuration, what is known of it, what the relay proof found,
//! and the tasks that find both out; dropped, it ends them. They are known by name.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::backend::{BackendState, Connectors, Pool, watch};
use crate::config::{self, Config, OnOpen};
use crate::control::NotDone;
use crate::policy::relay_guard::Hold;
use crate::proof::{LastProof, ProofRecord, Schedule};
use crate::session::Sizes;

use super::held::HeldServers;

/// How long the start waits to hear what backends offer. A backend that is down does not hold it up longer.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// One backend.
#[derive(Debug)]
pub(crate) struct Backend {
    /// As it was configured.
    pub(crate) config: config::Backend,
    /// What is known of it; sessions hold this too, and may outlive the rest.
    pub(crate) state: Arc<BackendState>,
    /// What the relay proof last found.
    pub(crate) proof: ProofRecord,
    /// Health checks, which go on as long as any generation has this backend.
    watch: Arc<JoinSet<()>>,
    /// Proofs, which are one configuration's.
    proving: Proving,
}

/// The task that proves a backend, if one does; dropped, it ends.
#[derive(Debug, Default)]
struct Proving(Option<AbortHandle>);

impl Proving {
    fn stop(&self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Drop for Proving {
    fn drop(&mut self) {
        self.stop();
    }
}

/// All of one configuration, in its order: every server, and the pools that they make up.
#[derive(Debug)]
pub(crate) struct Backends {
    servers: Vec<Backend>,
    pools: Vec<Arc<Pool>>,
    /// Those that were held when they left.
    held: HeldServers,
}

impl Backends {
    /// Asks every backend what it offers, briefly, and goes on asking on the current runtime.
    pub(crate) async fn watch(config: &Config, connectors: &Connectors) -> Self {
        let mut checks = Vec::new();
        let backends = config.backends.iter().map(|backend| {
            let (first, checked) = oneshot::channel();
            checks.push(checked);
            Backend::watch(backend, connectors, config, first)
        });
        let backends = Self::new(config, backends.collect(), HeldServers::default());
        wait_for(checks).await;
        backends
    }

    /// Those of another configuration: a backend that is as it was stays, with all that is known of it; the others are asked
    /// first, as at the start.
    pub(crate) async fn replace(old: &Self, old_config: &Config, config: &Config, connectors: &Connectors) -> Self {
        let mut held = old.held.clone();
        for Backend { config, state, proof, .. } in &old.servers {
            held.add(config, old_config, state.hold(), proof);
        }
        let mut checks = Vec::new();
        let backends = config.backends.iter().map(|backend| {
            let known = old.servers.iter().find(|old| old.config.name == backend.name);
            if let Some(known) = known.filter(|known| known.config == *backend && is_asked_alike(old_config, config)) {
                known.state.set_own_listeners(config.listeners.iter().map(|listener| listener.address));
                return known.again();
            }
            let (first, checked) = oneshot::channel();
            checks.push(checked);
            let new = Backend::watch(backend, connectors, config, first);
            if let Some(known) = known {
                new.state.set_draining(known.state.is_draining());
            }
            // Who was found to relay is held until a proof has shown that it no longer does, whatever was changed.
            let held = held.find(backend, config).inspect(|held| new.state.set_hold(held.hold));
            match held.map(|held| &held.proof).or_else(|| known.map(|known| &known.proof)) {
                Some(proof) => Backend { proof: proof.clone(), ..new },
                None => new,
            }
        });
        let servers: Vec<_> = backends.collect();
        held.forget(config);
        let backends = Self::new(config, servers, held);
        wait_for(checks).await;
        backends
    }

    fn new(config: &Config, servers: Vec<Backend>, held: HeldServers) -> Self {
        let states: Vec<_> = servers.iter().map(|backend| backend.state.clone()).collect();
        let pools = (0..config.pools.len()).map(|index| Arc::new(Pool::new(config, index, &states))).collect();
        Self { servers, pools, held }
    }

    /// The servers of the `[[backend]]` with this index.
    pub(crate) fn pool(&self, index: usize) -> Arc<Pool> {
        self.pools[index].clone()
    }

    /// Takes servers out, or back in; which they are.
    ///
    /// # Errors
    /// There is no such backend, or it has no such server.
    pub(crate) fn drain(&self, name: &str, server: Option<&str>, draining: bool) -> Result<Vec<String>, NotDone> {
        let whole = server.map(|server| format!("{name}/{server}"));
        let pool = self.pools.iter().find(|pool| pool.name == name);
        let servers: Vec<_> = match (&whole, pool) {
            (None, Some(pool)) => pool.servers().collect(),
            _ => {
                let wanted = whole.as_deref().unwrap_or(name);
                self.servers.iter().map(|backend| &backend.state).filter(|state| state.name == wanted).collect()
            }
        };
        if servers.is_empty() {
            let names: Vec<_> = self.servers.iter().map(|backend| format!("`{}`", backend.state.name)).collect();
            let wanted = whole.as_deref().unwrap_or(name);
            return Err(NotDone::new(format!(
                "there is no backend or server `{wanted}`; there are {}",
                names.join(", ")
            )));
        }
        for state in &servers {
            state.set_draining(draining);
        }
        Ok(servers.into_iter().map(|state| state.name.clone()).collect())
    }

    /// Proves each of them on schedule, on the current runtime.
    pub(crate) fn prove(&mut self, schedule: &Schedule) {
        for (index, backend) in self.servers.iter_mut().enumerate() {
            let task = tokio::spawn(schedule.follow(index, backend.proof.clone()));
            backend.proving = Proving(Some(task.abort_handle()));
        }
    }

    /// Proves none of them any more.
    pub(crate) fn stop_proving(&self) {
        self.servers.iter().for_each(|backend| backend.proving.stop());
    }

    /// What another process of this gateway found of those that have these names.
    pub(crate) fn adopt_proofs(&mut self, proofs: Vec<(String, LastProof)>, on_open: OnOpen) {
        for (name, last) in proofs {
            if let Some(backend) = self.servers.iter().find(|backend| backend.config.name == name) {
                // Whoever was found to relay is held until a proof has shown that it no longer does.
                backend.state.set_hold(last.hold(on_open));
                backend.proof.adopt(last);
            } else if last.hold(on_open) != Hold::None {
                let hold = last.hold(on_open);
                self.held.adopt(name, last, hold);
            }
        }
    }

    /// What the relay proof found of each, and of those that were held when they left, by their names.
    pub(crate) fn proofs(&self) -> Vec<(String, LastProof)> {
        let there = self.servers.iter().map(|backend| (backend.config.name.clone(), backend.proof.last()));
        there.chain(self.held.proofs()).collect()
    }

    /// In the configuration's order.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Backend> {
        self.servers.iter()
    }

    /// What is known of each, in the configuration's order.
    pub(crate) fn states(&self) -> Vec<Arc<BackendState>> {
        self.servers.iter().map(|backend| backend.state.clone()).collect()
    }
}

impl Backend {
    /// `first` hears of the first health check.
    fn watch(backend: &config::Backend, connectors: &Connectors, config: &Config, first: oneshot::Sender<()>) -> Self {
        let hostname = &config.server.hostname;
        let connector = connectors.get(&backend.name).cloned();
        let state = Arc::new(BackendState::new(backend, connector, hostname, config.timeouts.connect));
        state.set_own_listeners(config.listeners.iter().map(|listener| listener.address));
        let mut tasks = JoinSet::new();
        tasks.spawn(watch(state.clone(), hostname.clone(), Sizes::new(config), config.timeouts.clone(), first));
        Self {
            config: backend.clone(),
            state,
            proof: ProofRecord::default(),
            watch: Arc::new(tasks),
            proving: Proving::default(),
        }
    }

    /// The same backend in another generation.
    fn again(&self) -> Self {
        let Self { config, state, proof, watch, proving: _ } = self;
        Self {
            config: config.clone(),
            state: state.clone(),
            proof: proof.clone(),
            watch: watch.clone(),
            proving: Proving::default(),
        }
    }
}

/// Whether health checks ask the same, and make the same of the answer.
fn is_asked_alike(old: &Config, new: &Config) -> bool {
    (&old.server.hostname, Sizes::new(old), &old.timeouts) == (&new.server.hostname, Sizes::new(new), &new.timeouts)
}

/// Waits, but not long, for first health checks.
async fn wait_for(checks: Vec<oneshot::Receiver<()>>) {
    let all = async {
        for checked in checks {
            // A watch that ended has nothing to tell.
            let _ = checked.await;
        }
    };
    // Backends that need longer are learned later; until then clients are told of little and mail is answered 451.
    let _ = tokio::time::timeout(FIRST_CHECK_TIMEOUT, all).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Connectors;
    use crate::config::parse;

    const ONE: &str = "{ name = \"one\", address = \"127.0.0.1:1\" }";
    const TWO: &str = "{ name = \"two\", address = \"127.0.0.1:2\" }";
    const OTHER: &str = "127.0.0.1:3";

    /// Nobody listens there.
    fn config(servers: &str, other: &str) -> Config {
        let text = format!(
            "[server]\nhostname = \"mx.test\"\n[[listener]]\naddress = \"192.0.2.1:25\"\n[[backend]]\nname = \"a\"\n\
             servers = [{servers}]\n[[backend]]\nname = \"b\"\naddress = \"{other}\"\n[relay]\n\
             local_domains = [\"a.test\"]\n"
        );
        parse(&text, "gateway.toml").unwrap()
    }

    fn holds(backends: &Backends) -> Vec<(String, Hold)> {
        backends.states().iter().map(|state| (state.name.clone(), state.hold())).collect()
    }

    #[tokio::test]
    async fn who_was_found_to_relay_is_held_when_it_comes_back() {
        let connectors = Connectors::new();
        let mut known = config(&format!("{ONE}, {TWO}"), OTHER);
        let mut backends = Backends::watch(&known, &connectors).await;
        backends.states()[0].set_hold(Hold::Defer);
        let renamed = ONE.replace("one", "three");
        let moved = ONE.replace(":1\"", ":4\"");
        let both = format!("{TWO}, {ONE}");
        let steps = [
            ("it goes, and is another backend's", TWO, "127.0.0.1:1", None),
            ("nothing of it is there", TWO, OTHER, None),
            ("it is back by another name", &*renamed, OTHER, Some("a/three")),
            ("and by its own", &*both, OTHER, Some("a/one")),
            ("it goes again", TWO, OTHER, None),
            ("and is elsewhere", &*moved, OTHER, Some("a/one")),
        ];
        for (what, servers, other, held) in steps {
            let config = config(servers, other);
            backends = Backends::replace(&backends, &known, &config, &connectors).await;
            known = config;
            let expected = |name: &String| if held == Some(&**name) { Hold::Defer } else { Hold::None };
            for (name, hold) in holds(&backends) {
                assert_eq!(hold, expected(&name), "{what}: {name}");
            }
            assert_eq!(
                holds(&backends).iter().filter(|(_, hold)| *hold != Hold::None).count(),
                usize::from(held.is_some())
            );
        }
        // Proven since, it comes and goes as any other.
        backends.states()[0].set_hold(Hold::None);
        for servers in [TWO, &*moved, &*both] {
            let config = config(servers, OTHER);
            backends = Backends::replace(&backends, &known, &config, &connectors).await;
            known = config;
            assert!(holds(&backends).iter().all(|(_, hold)| *hold == Hold::None), "{servers}");
        }
    }

    #[tokio::test]
    async fn so_it_is_when_another_process_has_seen_it_go() {
        let (without, with) = (config(TWO, OTHER), config(&format!("{TWO}, {ONE}"), OTHER));
        let connectors = Connectors::new();
        let mut last = serde_json::to_value(ProofRecord::default().last()).unwrap();
        let safe: LastProof = serde_json::from_value(last.clone()).unwrap();
        last["relays"] = true.into();
        let relays = serde_json::from_value(last).unwrap();
        let mut backends = Backends::watch(&without, &connectors).await;
        backends.adopt_proofs(vec![("a/one".to_owned(), relays), ("a/three".to_owned(), safe)], OnOpen::Defer);
        let names: Vec<_> = backends.proofs().into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"a/one".to_owned()) && !names.contains(&"a/three".to_owned()), "{names:?}");
        let backends = Backends::replace(&backends, &without, &with, &connectors).await;
        assert!(holds(&backends).contains(&("a/one".to_owned(), Hold::Defer)), "{:?}", holds(&backends));
    }
}
