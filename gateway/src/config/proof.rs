//! `[proof]`: how the gateway shows that it relays for nobody. Who is a stranger and what is foreign must fit `[relay]`,
//! or the proof would ask about nothing.

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostics::quoted;
use super::read::{Complaint, Located, Read, Section};
use super::values::{boolean, duration, integer, text};
use crate::policy::domains::Membership;
use crate::policy::relay_guard::RelayGuard;
use crate::smtp::address::Domain;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// `relay.on_open`: what follows when the proof finds that a backend relays for strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOpen {
    /// It is said.
    Warn,
    /// It is said, and strangers' recipients must be plain addresses of local domains, in no form that a backend could
    /// read as a route.
    Guard,
    /// All mail is answered 451 until it is mended.
    Defer,
}

/// `[proof]`
#[derive(Debug, Clone, PartialEq)]
pub struct Proof {
    /// Whether the running gateway proves by itself. Default true; `selftest` works either way.
    pub enabled: bool,
    /// Between two proofs, give or take a tenth. Default `6h`.
    pub interval: Duration,
    /// The longest a proof of one backend may take. Default `10m`.
    pub deadline: Duration,
    /// Between two cases. Default `20ms`.
    pub pause: Duration,
    /// How far a probe goes: 1 to RCPT, 2 to DATA, 3 sends a message to `canary`. Default 1.
    pub level: u8,
    /// Where relayed mail would go. Default `nmap.scanme.org`.
    pub foreign_domain: String,
    /// Who exists, with or without a domain. Default `postmaster`.
    pub local_user: String,
    /// Whom level 3 sends to.
    pub canary: Option<String>,
    /// Who strangers claim to be; none of a family: an address of documentation.
    pub outsiders: Vec<IpAddr>,
    /// Addresses that the backend lets relay.
    pub trusted: Vec<IpAddr>,
    /// Addresses that the backend turns away.
    pub shunned: Vec<IpAddr>,
    /// Addresses of this host from which the listeners are tried over a real socket.
    pub front_door_from: Vec<IpAddr>,
    /// Addresses of this host, not the one backends see, from which identity is claimed.
    pub spoof_from: Vec<IpAddr>,
}

impl Default for Proof {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(6 * 3600),
            deadline: Duration::from_secs(600),
            pause: Duration::from_millis(20),
            level: 1,
            // What nmap's relay test names, too: it exists, its owners invite tests, and nothing is sent to it.
            foreign_domain: "nmap.scanme.org".to_owned(),
            local_user: "postmaster".to_owned(),
            canary: None,
            outsiders: Vec::new(),
            trusted: Vec::new(),
            shunned: Vec::new(),
            front_door_from: Vec::new(),
            spoof_from: Vec::new(),
        }
    }
}

/// The words of `relay.on_open`.
pub(super) const ON_OPEN: [(&str, OnOpen); 3] =
    [("warn", OnOpen::Warn), ("guard", OnOpen::Guard), ("defer", OnOpen::Defer)];

pub(super) fn proof(mut section: Section<'_, '_, '_>, relay: &RelayGuard) -> Proof {
    let default = Proof::default();
    let level = section.optional("level", integer(1..=3));
    let foreign_domain = section.optional("foreign_domain", foreign_domain);
    let canary = section.optional("canary", mailbox);
    let outsiders = addresses(&mut section, "outsiders");
    let front_door_from = addresses(&mut section, "front_door_from");
    let proof = Proof {
        enabled: section.or("enabled", default.enabled, boolean),
        interval: section.or("interval", default.interval, duration(60 * SECOND..=7 * 24 * HOUR)),
        deadline: section.or("deadline", default.deadline, duration(SECOND..=HOUR)),
        pause: section.or("pause", default.pause, duration(Duration::ZERO..=10 * SECOND)),
        local_user: section.or("local_user", default.local_user, local_user),
        trusted: ips(addresses(&mut section, "trusted")),
        shunned: ips(addresses(&mut section, "shunned")),
        front_door_from: front_door_from.iter().map(|from| from.value).collect(),
        spoof_from: ips(addresses(&mut section, "spoof_from")),
        level: level.as_ref().map_or(default.level, |level| level.value),
        foreign_domain: foreign_domain.as_ref().map_or(default.foreign_domain, |domain| domain.value.clone()),
        canary: canary.as_ref().map(|canary| canary.value.clone()),
        outsiders: outsiders.iter().map(|outsider| outsider.value).collect(),
    };
    let strangers = outsiders.iter().map(|located| (located, "outsiders"));
    for (Located { value, span }, key) in strangers.chain(front_door_from.iter().map(|from| (from, "front_door_from")))
    {
        if relay.allowed_networks.iter().any(|network| network.contains(value)) {
            let message = format!("`proof.{key}` names `{value}`, who may relay by `relay.allowed_networks`");
            section.report().misfit(span, message, "name an address of a stranger, such as `\"203.0.113.77\"`");
        }
    }
    let foreign = canary.iter().filter_map(|canary| Some((canary.value.rsplit_once('@')?.1, &canary.span, "canary")));
    let foreign = foreign.chain(foreign_domain.iter().map(|domain| (&*domain.value, &domain.span, "foreign_domain")));
    for (domain, span, key) in foreign {
        if relay.local_domains.contains(&Domain::Name(domain)) != Membership::Foreign {
            let message = format!("`proof.{key}` is in `{domain}`, which is in `relay.local_domains`");
            section.report().misfit(span, message, "name a domain that the mail server is not to relay to");
        }
    }
    if let Some(Located { value: 3, span }) = &level
        && canary.is_none()
    {
        let message = "`proof.level` is 3, which sends a message, and `proof.canary` does not say to whom";
        let help =
            "write `canary = \"…\"`, a mailbox of your own at another mail server, or `level = 2`, which sends none";
        section.report().misfit(span, message, help);
    }
    section.finish();
    proof
}

fn addresses(section: &mut Section<'_, '_, '_>, key: &'static str) -> Vec<Located<IpAddr>> {
    section.list(key, address).map(|list| list.value).unwrap_or_default()
}

fn ips(addresses: Vec<Located<IpAddr>>) -> Vec<IpAddr> {
    addresses.into_iter().map(|address| address.value).collect()
}

/// One machine's address.
fn address(value: &DeValue<'_>) -> Read<IpAddr> {
    let text = text(value, "203.0.113.77")?;
    let usable = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    usable.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).ok_or_else(|| {
        Complaint::new(
            format!("is {}, which is no machine's address", quoted(text)),
            "write an address without port or prefix, such as `\"203.0.113.77\"` or `\"2001:db8::77\"`",
        )
    })
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

fn is_atom(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'+');
    (1..=253).contains(&text.len()) && text.bytes().all(plain)
}
