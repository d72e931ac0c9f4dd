//! Backends whose servers DNS names (SRV, RFC 2782): it is asked at the start, at a reload, and when an answer's time is up.
//!
//! What comes of it is a configuration like any other, in which each target is a server of its own; nobody else knows of SRV.
//! Where DNS is at a loss the servers stay as they were: a fault of a resolver must not stop mail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::config::{self, Config, Dns, HostPort, SERVERS_MAX};
use crate::identity::names;
use crate::identity::xclient::is_host_name;

/// How soon an answer is asked for again, and how late, whatever its time to live.
const LIFE_MIN: Duration = Duration::from_secs(5);
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// How soon after a question that was not answered.
const RETRY: Duration = Duration::from_secs(15);

/// A configuration that has such backends, and what is known of them.
#[derive(Debug)]
pub struct SrvServers {
    /// As it was written.
    config: Config,
    answers: BTreeMap<String, Answer>,
    problems: SrvProblems,
}

/// What is wrong with records, a sentence each, for whoever asks.
#[derive(Debug, Clone, Default)]
pub struct SrvProblems(Arc<Mutex<Vec<String>>>);

/// What is known of one name.
#[derive(Debug, Clone)]
struct Answer {
    /// In their order.
    targets: Vec<Target>,
    problem: Option<String>,
    until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    priority: u16,
    host: String,
    port: u16,
    weight: u16,
}

/// What DNS says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// These, for so long.
    Targets(Vec<Target>, Duration),
    /// That there is no such service.
    NoService(Duration),
    /// Nothing of use, and why.
    Nothing(String),
}

impl SrvProblems {
    /// As they are now.
    pub fn get(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problems: Vec<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for news in problems.iter().filter(|problem| !known.contains(problem)) {
            warn!("{news}");
        }
        *known = problems;
    }
}

impl SrvServers {
    /// The configuration with the servers that DNS names, and what to ask again; what was answered before holds for its time.
    /// A configuration without such backends comes back as it is.
    pub async fn find(config: Config, before: Option<&Self>) -> (Config, Option<Self>) {
        let names: Vec<String> = config.pools.iter().filter_map(|pool| pool.srv.clone()).collect();
        if names.is_empty() {
            return (config, None);
        }
        let known = |name: &String| before.and_then(|before| before.answers.get(name)).cloned();
        let answers = names.into_iter().map(|name| (known(&name).unwrap_or_else(Answer::unasked), name));
        let mut found = Self {
            config,
            answers: answers.map(|(answer, name)| (name, answer)).collect(),
            problems: before.map(|before| before.problems.clone()).unwrap_or_default(),
        };
        found.ask().await;
        (found.expanded(), Some(found))
    }

    /// What is wrong with the records.
    pub fn problems(&self) -> &SrvProblems {
        &self.problems
    }

    /// The configuration as it was written.
    pub fn written(&self) -> Config {
        self.config.clone()
    }

    /// Until DNS names other servers. To be dropped at any time: then nothing was learned.
    pub async fn changed(&mut self) {
        loop {
            let due = self.answers.values().map(|answer| answer.until).min();
            sleep_until(due.unwrap_or_else(|| Instant::now() + LIFE_MAX)).await;
            if self.ask().await {
                return;
            }
        }
    }

    /// Asks for what is due. Whether other servers are named than before.
    async fn ask(&mut self) -> bool {
        let now = Instant::now();
        let due = self.answers.iter().filter(|(_, answer)| answer.until <= now).map(|(name, _)| name.clone());
        let due: Vec<_> = due.collect();
        let mut said = Vec::new();
        for name in due {
            said.push((look_up(&self.config.dns, &name).await, name));
        }
        let mut changed = false;
        for (said, name) in said {
            let Some(answer) = self.answers.get_mut(&name) else { continue };
            let before = std::mem::take(&mut answer.targets);
            answer.hear(said, before.clone());
            if answer.targets != before {
                changed = true;
                let servers: Vec<_> = answer.targets.iter().map(|it| format!("{}:{}", it.host, it.port)).collect();
                info!(srv = name, servers = servers.join(" "), "SRV records name these servers");
            }
        }
        self.problems.set(self.sentences());
        changed
    }

    fn sentences(&self) -> Vec<String> {
        let of = |pool: &config::Pool| {
            let srv = pool.srv.as_ref()?;
            let answer = self.answers.get(srv)?;
            let problem = answer.problem.as_ref()?;
            let what = if answer.targets.is_empty() {
                "so all its mail is answered 451; name servers there, or write `servers` instead of `srv`"
            } else {
                "and it goes on with those that are known"
            };
            Some(format!("backend `{}`: SRV records of {srv} {problem}, {what}", pool.name))
        };
        self.config.pools.iter().filter_map(of).collect()
    }

    /// The configuration with a server for each target.
    fn expanded(&self) -> Config {
        let mut config = self.config.clone();
        let mut servers = Vec::new();
        for pool in &mut config.pools {
            let written = &self.config.backends[pool.servers.clone()];
            let first = servers.len();
            match pool.srv.as_ref().and_then(|srv| self.answers.get(srv)) {
                Some(answer) if !answer.targets.is_empty() => servers.extend(answer.servers(&written[0])),
                _ => servers.extend_from_slice(written),
            }
            pool.servers = first..servers.len();
        }
        Config { backends: servers, ..config }
    }
}

impl Answer {
    fn unasked() -> Self {
        Self { targets: Vec::new(), problem: None, until: Instant::now() }
    }

    fn hear(&mut self, said: Said, before: Vec<Target>) {
        let now = Instant::now();
        *self = match said {
            Said::Targets(mut targets, life) => {
                let usable = targets.len();
                targets.truncate(SERVERS_MAX);
                let problem = (usable > SERVERS_MAX).then(|| {
                    format!("name {usable} servers, of which {SERVERS_MAX} can be used (the first by priority)")
                });
                Self { targets, problem, until: now + life.clamp(LIFE_MIN, LIFE_MAX) }
            }
            Said::NoService(life) => Self {
                targets: Vec::new(),
                problem: Some("say that there is no such service (`.`)".to_owned()),
                until: now + life.clamp(LIFE_MIN, LIFE_MAX),
            },
            Said::Nothing(why) => Self { targets: before, problem: Some(why), until: now + RETRY },
        };
    }

    /// What stands for all of them, once for each.
    fn servers(&self, written: &config::Backend) -> Vec<config::Backend> {
        let ranks: BTreeSet<u16> = self.targets.iter().map(|target| target.priority).collect();
        let most = self.targets.iter().map(|target| u32::from(target.weight)).max().unwrap_or(0).max(1);
        let several = |host: &str| self.targets.iter().filter(|target| target.host == host).count() > 1;
        let server = |target: &Target| {
            let Target { priority, host, port, weight } = target;
            let rank = ranks.iter().take_while(|other| *other < priority).count();
            let name = if several(host) { format!("{host}:{port}") } else { host.clone() };
            config::Backend {
                name: format!("{}/{name}", written.name),
                address: HostPort::Name(host.clone(), *port),
                // A weight of 0 is a small chance (RFC 2782).
                weight: (u32::from(*weight) * 100 / most).max(1),
                priority: u32::try_from(rank).unwrap_or(u32::MAX).saturating_add(1),
                ..written.clone()
            }
        };
        self.targets.iter().map(server).collect()
    }
}

/// One question, which takes no longer than one for a client's name.
async fn look_up(dns: &Dns, name: &str) -> Said {
    // Made anew, for the system's resolvers may be others by now.
    let resolver = match names::resolver(dns) {
        Ok(resolver) => resolver,
        Err(error) => return Said::Nothing(format!("cannot be looked up: {error}")),
    };
    match timeout(dns.timeout, ask(&resolver, name)).await {
        Ok(Ok((records, life))) => judge(&records, life),
        Ok(Err(error)) if error.is_no_records_found() => Said::Nothing("do not exist".to_owned()),
        Ok(Err(error)) => Said::Nothing(format!("cannot be looked up: {error}")),
        Err(_) => Said::Nothing("cannot be looked up: no resolver answers in time".to_owned()),
    }
}

async fn ask(resolver: &TokioResolver, name: &str) -> Result<(Vec<Target>, Duration), NetError> {
    let answer = resolver.lookup(format!("{name}."), RecordType::SRV).await?;
    let mut life = LIFE_MAX;
    let records = answer.answers().iter().filter_map(|record| {
        life = life.min(Duration::from_secs(record.ttl.into()));
        let RData::SRV(srv) = &record.data else { return None };
        let host = srv.target.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        Some(Target { priority: srv.priority, host, port: srv.port, weight: srv.weight })
    });
    let records = records.collect();
    Ok((records, life))
}

/// What records come to.
fn judge(records: &[Target], life: Duration) -> Said {
    // The root as the target, and alone, denies the service.
    if let [only] = records
        && only.host.is_empty()
    {
        return Said::NoService(life);
    }
    let is_usable = |target: &&Target| target.port != 0 && is_host_name(&target.host);
    let targets: BTreeSet<Target> = records.iter().filter(is_usable).cloned().collect();
    if targets.is_empty() {
        return Said::Nothing("name no server that can be one".to_owned());
    }
    let mut seen = BTreeSet::new();
    let first = |target: &Target| seen.insert((target.host.clone(), target.port));
    Said::Targets(targets.into_iter().filter(first).collect(), life)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn target(priority: u16, weight: u16, host: &str, port: u16) -> Target {
        Target { priority, host: host.to_owned(), port, weight }
    }

    fn written() -> Config {
        let text = "[server]\nhostname = \"mx.test\"\n[[listener]]\naddress = \"192.0.2.1:25\"\n[[backend]]\nname = \"a\"\n\
                    srv = \"_smtp._tcp.a.test\"\nmax_sessions = 7\n[[backend]]\nname = \"b\"\naddress = \"192.0.2.2\"\n\
                    [relay]\nlocal_domains = [\"a.test\"]\n";
        parse(text, "gateway.toml").unwrap()
    }

    fn after(said: impl IntoIterator<Item = Said>) -> SrvServers {
        let mut answer = Answer::unasked();
        for said in said {
            let before = std::mem::take(&mut answer.targets);
            answer.hear(said, before);
        }
        let answers = BTreeMap::from([("_smtp._tcp.a.test".to_owned(), answer)]);
        SrvServers { config: written(), answers, problems: SrvProblems::default() }
    }

    fn servers(found: &SrvServers) -> Vec<(String, String, u32, u32)> {
        let config = found.expanded();
        let of_pool = &config.backends[config.pools[0].servers.clone()];
        assert_eq!(config.pools[1].servers, of_pool.len()..of_pool.len() + 1);
        assert_eq!((&*config.backends[of_pool.len()].name, config.backends[of_pool.len()].pool), ("b", 1));
        assert!(of_pool.iter().all(|server| server.pool == 0 && server.max_sessions == 7));
        of_pool.iter().map(|it| (it.name.clone(), it.address.to_string(), it.priority, it.weight)).collect()
    }

    fn named(name: &str, address: &str, priority: u32, weight: u32) -> (String, String, u32, u32) {
        (name.to_owned(), address.to_owned(), priority, weight)
    }

    #[test]
    fn each_target_is_a_server_with_its_port_weight_and_priority() {
        let records = [
            target(20, 0, "spare.test", 25),
            target(10, 60, "mx1.test", 2525),
            target(10, 30, "mx2.test", 25),
            target(10, 0, "mx2.test", 26),
            target(10, 60, "mx1.test", 2525),
        ];
        let found = after([judge(&records, Duration::from_secs(60))]);
        let expected = [
            named("a/mx1.test", "mx1.test:2525", 1, 100),
            named("a/mx2.test:25", "mx2.test:25", 1, 50),
            named("a/mx2.test:26", "mx2.test:26", 1, 1),
            named("a/spare.test", "spare.test:25", 2, 1),
        ];
        assert_eq!(servers(&found), expected);
        assert_eq!(found.sentences(), Vec::<String>::new());
    }

    #[test]
    fn records_that_say_nothing_leave_what_was_known_and_are_told() {
        let life = Duration::from_secs(60);
        let good = || judge(&[target(1, 1, "mx1.test", 25)], life);
        let known = vec![named("a/mx1.test", "mx1.test:25", 1, 100)];
        let unknown = vec![named("a", "_smtp._tcp.a.test:25", 1, 1)];
        let nothing = |why: &str| Said::Nothing(why.to_owned());
        let unusable = || judge(&[target(1, 1, "mx1.test", 0), target(1, 1, "not a name", 25)], life);
        let denied = || judge(&[target(0, 0, "", 0)], life);
        let cases = [
            (vec![], &unknown, None),
            (vec![good()], &known, None),
            (vec![nothing("do not exist")], &unknown, Some("do not exist, so all its mail is answered 451")),
            (vec![good(), nothing("do not exist")], &known, Some("do not exist, and it goes on")),
            (vec![good(), unusable()], &known, Some("name no server that can be one, and it goes on")),
            (vec![good(), denied()], &unknown, Some("say that there is no such service (`.`), so all its mail")),
            (vec![nothing("cannot be looked up: x"), good()], &known, None),
        ];
        for (said, expected, sentence) in cases {
            let what = format!("{said:?}");
            let found = after(said);
            assert_eq!(&servers(&found), expected, "{what}");
            match (sentence, &*found.sentences()) {
                (None, []) => {}
                (Some(sentence), [told]) => assert!(told.contains(sentence), "{told}"),
                (expected, told) => panic!("{what}: {told:?} and not {expected:?}"),
            }
        }
    }

    #[test]
    fn no_more_servers_than_a_backend_may_have() {
        let records: Vec<_> = (0..40).map(|n| target(40 - n, 1, &format!("mx{n}.test"), 25)).collect();
        let found = after([judge(&records, Duration::from_secs(60))]);
        assert_eq!(servers(&found).len(), SERVERS_MAX);
        assert_eq!(servers(&found)[0].0, "a/mx39.test");
        assert!(found.sentences()[0].contains("name 40 servers, of which 32 can be used"), "{:?}", found.sentences());
    }

    #[tokio::test]
    async fn without_such_backends_nothing_is_asked() {
        let mut config = written();
        config.pools[0].srv = None;
        let (same, asking) = SrvServers::find(config.clone(), None).await;
        assert!(same == config && asking.is_none());
    }
}
