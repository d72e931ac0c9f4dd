//! `[proof]`: how the gateway shows that it relays for nobody. Who is a stranger and what is foreign must fit `[relay]`,
//! or the proof would ask about nothing.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::Relay;
use super::addresses::machine_address;
use super::declare::{Each, Maybe, table};
use super::diagnostics::quoted;
use super::read::{Complaint, Located, Read, Section};
use super::values::{DAY, HOUR, MINUTE, SECOND, boolean, duration, integer, text};
use crate::smtp::address::Domain;
use crate::smtp::domains::Membership;

/// What nmap's relay test names, too: it exists, its owners invite tests, and nothing is sent to it.
const FOREIGN_DOMAIN: &str = "nmap.scanme.org";

table! {
    /// `[proof]`
    pub struct Proof: Default {
        /// Whether the running gateway proves by itself; `selftest` works either way.
        enabled: bool = true, boolean;
        /// Between two proofs, give or take a tenth.
        interval: Duration = 6 * HOUR, duration(MINUTE..=7 * DAY);
        /// The longest a proof of one backend may take.
        deadline: Duration = 10 * MINUTE, duration(SECOND..=HOUR);
        /// Between two cases.
        pause: Duration = Duration::from_millis(20), duration(Duration::ZERO..=10 * SECOND);
        /// How far a probe goes: 1 to RCPT, 2 to DATA, 3 sends a message to `canary`.
        level: u8 = 1, integer(1..=3);
        /// Where relayed mail would go.
        foreign_domain: String = FOREIGN_DOMAIN.to_owned(), foreign_domain;
        /// Who exists, with or without a domain.
        local_user: String = "postmaster".to_owned(), local_user;
        /// An account that does not exist, and that must be refused where users log in.
        unknown_login: Option<String> = None, Maybe(account);
        /// Whom level 3 sends to.
        canary: Option<String> = None, Maybe(mailbox);
        /// Who strangers claim to be; none of a family: an address of documentation.
        outsiders: Vec<IpAddr> = Vec::new(), Each(machine_address);
        /// Addresses that the backend lets relay.
        trusted: Vec<IpAddr> = Vec::new(), Each(machine_address);
        /// Addresses that the backend turns away.
        shunned: Vec<IpAddr> = Vec::new(), Each(machine_address);
        /// Addresses of this host from which the listeners are tried over a real socket.
        front_door_from: Vec<IpAddr> = Vec::new(), Each(machine_address);
        /// Addresses of this host, not the one backends see, from which identity is claimed.
        spoof_from: Vec<IpAddr> = Vec::new(), Each(machine_address);
    }
}

pub(super) fn proof(mut section: Section<'_, '_, '_>, relay: &Relay) -> Proof {
    let proof = Proof::read(&mut section);
    for key in ["outsiders", "front_door_from"] {
        for Located { value, span } in section.elements(key, machine_address) {
            if relay.allowed_networks.iter().any(|network| network.contains(&value)) {
                let message = format!("`proof.{key}` names `{value}`, who may relay by `relay.allowed_networks`");
                section.report().misfit(&span, message, "name an address of a stranger, such as `\"203.0.113.77\"`");
            }
        }
    }
    let canary = proof.canary.as_deref().and_then(|canary| canary.rsplit_once('@')).map(|(_, domain)| domain);
    for (key, domain) in [("canary", canary), ("foreign_domain", Some(&*proof.foreign_domain))] {
        let Some(Located { value: Some(domain), span }) = section.locate(key, domain) else { continue };
        if relay.local_domains.contains(&Domain::Name(domain)) != Membership::Foreign {
            let message = format!("`proof.{key}` is in `{domain}`, which is in `relay.local_domains`");
            section.report().misfit(&span, message, "name a domain that the mail server is not to relay to");
        }
    }
    if let Some(Located { value: 3, span }) = section.locate("level", proof.level)
        && section.locate("canary", ()).is_none()
    {
        let message = "`proof.level` is 3, which sends a message, and `proof.canary` does not say to whom";
        let help =
            "write `canary = \"…\"`, a mailbox of your own at another mail server, or `level = 2`, which sends none";
        section.report().misfit(&span, message, help);
    }
    section.finish();
    proof
}

/// A domain that can show whether mail is relayed to it.
fn foreign_domain(value: &DeValue<'_>) -> Read<String> {
    let name = text(value, "example.org")?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let reserved = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("invalid"));
    if name.len() > 253 || !plain || !name.contains('.') || name.split('.').any(str::is_empty) {
        let help = "write a domain that exists and that the mail server is not to relay to";
        return Err(Complaint::new(format!("is {}, which is no domain", quoted(name)), help));
    }
    if reserved {
        let help = "write a domain that exists: what does not is refused by everybody, which proves nothing";
        return Err(Complaint::new(format!("is {}, which cannot exist", quoted(name)), help));
    }
    Ok(name.to_ascii_lowercase())
}

/// `user@domain`, of atoms.
fn mailbox(value: &DeValue<'_>) -> Read<String> {
    let mailbox = text(value, "relay-canary@example.org")?;
    let fits = mailbox.rsplit_once('@').is_some_and(|(local, domain)| is_atom(local) && domain.contains('.'));
    if !fits || !mailbox.rsplit('@').next().is_some_and(is_atom) {
        let help = "write a whole address, such as `\"relay-canary@example.org\"`";
        return Err(Complaint::new(format!("is {}, which is no mail address", quoted(mailbox)), help));
    }
    Ok(mailbox.to_owned())
}

/// A user, with or without a domain.
fn local_user(value: &DeValue<'_>) -> Read<String> {
    let user = text(value, "postmaster")?;
    let (local, domain) = user.rsplit_once('@').unwrap_or((user, "domain"));
    if !is_atom(local) || !is_atom(domain) {
        let help = "write a user who exists at the mail server, such as `\"postmaster\"` or `\"info@example.com\"`";
        return Err(Complaint::new(format!("is {}, which is no user", quoted(user)), help));
    }
    Ok(user.to_owned())
}

/// What somebody might log in as, with or without a domain.
fn account(value: &DeValue<'_>) -> Read<String> {
    let account = text(value, "nobody-has-this-name")?;
    let (local, domain) = account.rsplit_once('@').unwrap_or((account, "domain"));
    if !is_atom(local) || !is_atom(domain) {
        let help = "write a name that no user of the mail server has, such as `\"nobody-has-this-name@example.com\"`";
        return Err(Complaint::new(format!("is {}, which is no account's name", quoted(account)), help));
    }
    Ok(account.to_owned())
}

fn is_atom(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'+');
    (1..=253).contains(&text.len()) && text.bytes().all(plain)
}
