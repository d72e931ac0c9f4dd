//! What users may log in by, as a backend's last health check saw it.

use crate::smtp::auth::Mechanisms;

use super::state::Health;

/// Names of SASL mechanisms, the strongest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoginMechanisms {
    /// Users are offered these.
    pub relayed: Vec<&'static str>,
    /// These would work by themselves, and are kept from users for what stands beside them.
    pub withheld: Vec<&'static str>,
    /// That: what binds to the backend's own TLS.
    pub bound: Vec<&'static str>,
}

impl Health {
    /// By its EHLO reply.
    pub fn mechanisms(&self) -> LoginMechanisms {
        let offered = offered(&self.keywords);
        let relayed = offered.relayable();
        let (bound, withheld) = (offered - relayed).names().partition(|name| name.ends_with("-PLUS"));
        LoginMechanisms { relayed: relayed.names().collect(), withheld, bound }
    }
}

/// Some servers repeat the line with `=`, for clients of long ago.
fn offered(keywords: &[String]) -> Mechanisms {
    let is_auth = |word: &&str| word.eq_ignore_ascii_case("AUTH");
    let lines = keywords.iter().map(|line| line.split([' ', '=']));
    let names = lines.filter_map(|mut words| words.next().filter(is_auth).map(|_| words)).flatten();
    names.fold(Mechanisms::empty(), |all, name| all | Mechanisms::named(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_relayed_and_what_is_not() {
        let mechanisms = |keywords: &[&str]| {
            let keywords = keywords.iter().map(|keyword| (*keyword).to_owned()).collect();
            Health { keywords, ..Health::default() }.mechanisms()
        };
        let of = |relayed: &[&'static str], withheld: &[&'static str], bound: &[&'static str]| LoginMechanisms {
            relayed: relayed.to_vec(),
            withheld: withheld.to_vec(),
            bound: bound.to_vec(),
        };
        for (keywords, expected) in [
            (&["PIPELINING"][..], of(&[], &[], &[])),
            (&["auth plain LOGIN NTLM GSSAPI", "AUTH=CRAM-MD5"], of(&["CRAM-MD5", "PLAIN", "LOGIN"], &[], &[])),
            (
                &["AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS"],
                of(&["SCRAM-SHA-1", "PLAIN"], &["SCRAM-SHA-256"], &["SCRAM-SHA-256-PLUS"]),
            ),
        ] {
            assert_eq!(mechanisms(keywords), expected, "{keywords:?}");
        }
    }
}
