//! One configuration in force, and what was made of it. A reload makes another whole, and puts it in its place; sessions that
//! began under the old one hold what they need of it, the rest ends with it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::backend::SrvProblems;
use crate::config::{self, Config};
use crate::control::{ConfigStatus, ListenerStatus};
use crate::identity::names::Names;
use crate::route::Routes;
use crate::time::clock::since_1970;

use super::backends::Backends;

/// A configuration in force.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) config: Config,
    /// Where it came from.
    pub(super) origin: Origin,
    /// Reverse DNS.
    pub(super) names: Names,
    pub(super) backends: Backends,
    pub(super) listeners: Vec<ListenerStatus>,
    /// What is not as the file says, and what to do, a sentence each.
    pub(super) kept: Vec<String>,
    /// What is wrong with the records that name servers.
    pub(super) srv_problems: SrvProblems,
}

impl Generation {
    /// The first one.
    pub(super) fn first(
        (config, origin): (Config, Origin),
        names: Names,
        backends: Backends,
        addresses: Vec<SocketAddr>,
        (kept, srv_problems): (Vec<String>, SrvProblems),
    ) -> Self {
        let listeners = listener_statuses(&config, addresses);
        Self { config, origin, names, backends, listeners, kept, srv_problems }
    }
}

/// Where a configuration came from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// `None`: from no file.
    file: Option<PathBuf>,
    /// Seconds since 1970, UTC.
    pub(super) loaded_at: u64,
    /// Tells configurations apart.
    pub(super) digest: String,
}

impl Origin {
    /// Of a configuration that was read just now.
    pub(super) fn new(config: &Config, file: Option<PathBuf>) -> Self {
        let mut hasher = DefaultHasher::new();
        format!("{config:?}").hash(&mut hasher);
        Self { file, loaded_at: since_1970().as_secs(), digest: format!("{:016x}", hasher.finish()) }
    }

    /// Of another one from the same file.
    pub(super) fn again(&self, config: &Config) -> Self {
        Self::new(config, self.file.clone())
    }

    pub(super) fn status(&self) -> ConfigStatus {
        ConfigStatus {
            file: self.file.as_ref().map(|file| file.display().to_string()),
            loaded_at: self.loaded_at,
            digest: self.digest.clone(),
        }
    }
}

/// Puts back what a running gateway cannot change, and says what to do, a sentence a key.
pub(super) fn keep_unchangeable(old: &Config, new: &mut Config) -> Vec<String> {
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($($part:ident).+),+ $(,)?) => {$(
            if new.$($part).+ != old.$($part).+ {
                new.$($part).+ = old.$($part).+.clone();
                let key = [$(stringify!($part)),+].join(".");
                kept.push(format!("`{key}` is still as it was at the start: run `smtp-gateway upgrade` to change it"));
            }
        )+};
    }
    // Threads and their sockets; what was done before privileges were given up.
    keep!(server.user, server.state, server.workers, control.socket, control.allowed_uids, log.format);
    keep!(xdp.interfaces, xdp.mode, xdp.force, xdp.outside, xdp.pins, xdp.allow);
    kept
}

/// The listeners of `config` as `status` shows them. `addresses` is where each really listens.
pub(super) fn listener_statuses(
    config: &Config,
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> Vec<ListenerStatus> {
    let status = |(index, (listener, address)): (usize, (&config::Listener, _))| ListenerStatus {
        address,
        backend: Routes::new(config, index)
            .pools()
            .iter()
            .map(|pool| &*config.pools[*pool].name)
            .collect::<Vec<_>>()
            .join(", "),
        proxy_protocol: !listener.proxy_protocol_from.is_empty(),
        tls: listener.tls.as_str().to_owned(),
    };
    config.listeners.iter().zip(addresses).enumerate().map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[server]\nhostname = \"mx.example.com\"\nworkers = 2\n[[listener]]\naddress = \"0.0.0.0:25\"\n\
                          [[backend]]\naddress = \"192.0.2.25\"\n[relay]\nlocal_domains = [\"example.com\"]\n";

    #[test]
    fn what_cannot_change_stays_and_is_said() {
        let parse = |text: &str| config::parse(text, "gateway.toml").unwrap();
        let old = parse(CONFIG);
        let text =
            CONFIG.replace("workers = 2", "workers = 3") + "[control]\nsocket = \"/tmp/x\"\n[limits]\nsessions = 7\n";
        let mut new = parse(&text);
        let kept = keep_unchangeable(&old, &mut new);
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept[0].starts_with("`server.workers` ") && kept[1].starts_with("`control.socket` "), "{kept:?}");
        assert_eq!((new.server.workers, &new.control, new.limits.sessions), (2, &old.control, 7));
        let unchanged = keep_unchangeable(&old, &mut parse(CONFIG));
        assert_eq!(unchanged, Vec::<String>::new());
    }

    #[test]
    fn the_same_configuration_has_the_same_digest() {
        let digest = |domains: &str| {
            let text = CONFIG.replace("\"example.com\"]", domains);
            Origin::new(&config::parse(&text, "gateway.toml").unwrap(), None).digest
        };
        let many = "\"a.test\", \"b.test\", \".c.test\", \"d.test\", \"[192.0.2.1]\", \"[192.0.2.2]\"]";
        let first = digest(many);
        (0..8).for_each(|_| assert_eq!(digest(many), first));
        assert_ne!(digest(&many.replace("d.test", "e.test")), first);
    }
}
