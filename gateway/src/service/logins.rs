//! Where users log in: what they may log in by, what stands against it, and where their passwords go.

use crate::backend::{Health, LoginMechanisms};
use crate::config::{Backend, BackendTls, Config, Service};
use crate::control::{LoginStatus, LoginTotals};
use crate::observe::counters::Totals;

use super::secured::counts;

/// Whether users come to this backend.
fn is_for_users(config: &Config, backend: &Backend) -> bool {
    let submits = |service| service == Service::Submission;
    config.listeners.iter().any(|listener| submits(listener.service) && listener.backend == backend.pool)
}

/// Backends to which passwords go in clear text over a network, a sentence each.
pub(super) fn exposed_passwords(config: &Config) -> Vec<String> {
    let exposed = |backend: &&Backend| {
        backend.tls == BackendTls::Off
            && !backend.clear_text_auth
            && !backend.address.is_on_this_host()
            && is_for_users(config, backend)
    };
    let sentence = |backend: &Backend| {
        let Backend { name, address, .. } = backend;
        format!(
            "users log in at the backend {name}, and their passwords go to {address} in clear text; write `tls = \"required\"` at \
             its `[[backend]]`, or `clear_text_auth = true` if nobody else hears what is said on the way"
        )
    };
    config.backends.iter().filter(exposed).map(sentence).collect()
}

/// What users may log in by there; `None` where they do not. `on_this_host`: nobody else hears what is said to it.
pub(super) fn of_backend(
    config: &Config,
    backend: &Backend,
    health: &Health,
    on_this_host: bool,
) -> Option<LoginStatus> {
    if !is_for_users(config, backend) {
        return None;
    }
    let mechanisms = health.mechanisms();
    let keeps_secrets = backend.tls != BackendTls::Opportunistic || backend.clear_text_auth || on_this_host;
    let refused = (!keeps_secrets && health.healthy && health.tls.is_none()).then(|| {
        "the connection to it is in clear text, in which no password is sent on: AUTH is answered 454".to_owned()
    });
    Some(LoginStatus {
        withheld: withheld(&mechanisms),
        mechanisms: mechanisms.relayed.into_iter().map(str::to_owned).collect(),
        refused,
    })
}

fn withheld(mechanisms: &LoginMechanisms) -> Option<String> {
    let LoginMechanisms { withheld, bound, .. } = mechanisms;
    if withheld.is_empty() {
        return None;
    }
    Some(format!(
        "users are not offered {}, for it offers {} too, which binds to its own TLS: a client that knows both would take the \
         gateway for an attacker (RFC 5802 section 6)",
        withheld.join(", "),
        bound.join(", ")
    ))
}

/// Since the start.
pub(super) fn of_users(totals: &Totals) -> LoginTotals {
    LoginTotals {
        outcomes_total: counts(&totals.logins_total),
        mechanisms_total: counts(&totals.login_mechanisms_total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(backend: &str) -> Config {
        let text = format!(
            "[server]\nhostname = \"mx.example.com\"\n[[listener]]\naddress = \"0.0.0.0:25\"\nbackend = \"mx\"\n\
             [[listener]]\naddress = \"0.0.0.0:587\"\nservice = \"submission\"\nbackend = \"users\"\n\
             [relay]\nlocal_domains = [\"example.com\"]\n[submission]\nclear_text_networks = [\"10.0.0.0/8\"]\n\
             [[backend]]\nname = \"mx\"\naddress = \"10.0.0.25:25\"\n\
             [[backend]]\nname = \"users\"\n{backend}\n"
        );
        crate::config::parse(&text, "test.toml").unwrap()
    }

    #[test]
    fn passwords_in_clear_on_a_network_are_told_of() {
        for (backend, exposed) in [
            ("address = \"10.0.0.25:587\"", true),
            ("address = \"mail.example.com:587\"", true),
            ("address = \"10.0.0.25:587\"\nclear_text_auth = true", false),
            ("address = \"10.0.0.25:587\"\ntls = \"opportunistic\"", false),
            ("address = \"127.0.0.1:10587\"", false),
            ("address = \"[::1]:10587\"", false),
            ("address = \"localhost:10587\"", false),
        ] {
            let told = exposed_passwords(&config(backend));
            assert_eq!(told.len(), usize::from(exposed), "{backend}: {told:?}");
            assert!(told.iter().all(|told| told.contains("the backend users")), "{told:?}");
        }
    }

    #[test]
    fn why_nobody_can_log_in_or_not_by_everything() {
        let health = |healthy, keywords: &[&str]| Health {
            healthy,
            keywords: keywords.iter().map(|keyword| (*keyword).to_owned()).collect(),
            ..Health::default()
        };
        let status = |backend: &str, health: &Health, on_this_host| {
            let config = config(backend);
            assert_eq!(of_backend(&config, &config.backends[0], health, on_this_host), None, "no users come there");
            of_backend(&config, &config.backends[1], health, on_this_host).unwrap()
        };
        let plain = health(true, &["PIPELINING", "AUTH PLAIN LOGIN NTLM", "AUTH=PLAIN LOGIN"]);
        let off = "address = \"10.0.0.25:587\"";
        let maybe = "address = \"10.0.0.25:587\"\ntls = \"opportunistic\"";
        let names = ["PLAIN", "LOGIN"].map(str::to_owned).to_vec();
        assert_eq!(status(off, &plain, false), LoginStatus { mechanisms: names, withheld: None, refused: None });
        assert!(status(maybe, &plain, false).refused.is_some_and(|why| why.contains("454")));
        assert_eq!(status(maybe, &plain, true).refused, None, "nobody else hears it");
        assert_eq!(status(maybe, &health(false, &[]), false).refused, None, "that has its own sentence");
        assert_eq!(status(&format!("{maybe}\nclear_text_auth = true"), &plain, false).refused, None);
        let bound = health(true, &["AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS"]);
        let LoginStatus { mechanisms, withheld, .. } = status(off, &bound, false);
        assert_eq!(mechanisms, ["SCRAM-SHA-1", "PLAIN"]);
        let withheld = withheld.unwrap();
        assert!(
            withheld.starts_with("users are not offered SCRAM-SHA-256, for it offers SCRAM-SHA-256-PLUS too"),
            "{withheld}"
        );
    }
}
