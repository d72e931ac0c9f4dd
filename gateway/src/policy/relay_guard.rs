//! The relay guard: strangers may send to local domains and to nobody else.
//!
//! The backend may trust the gateway's address, so what the guard lets pass may be relayed. It judges the address as
//! written: where servers have been known to read a second address out of a local part, a stranger does not get to try.

use ipnet::IpNet;

use crate::config::Relay;
use crate::identity::ClientAddr;
use crate::smtp::address::ForwardPath;
use crate::smtp::domains::{DomainSet, Membership};
use crate::smtp::labels::folds_onto;

/// Whose mail may go where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayGuard {
    /// Domains everybody may send to.
    pub local_domains: DomainSet,
    /// Networks that may send anywhere.
    pub allowed_networks: Vec<IpNet>,
}

/// What a backend that was found to relay for strangers may still be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Hold {
    /// Everything that passes: none was found.
    #[default]
    None,
    /// Of strangers, only recipients that no server could read as a route.
    Plain,
    /// Nothing, until it is mended.
    Defer,
}

/// What the guard says of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayVerdict {
    /// The backend may hear of it.
    Pass,
    /// A stranger's foreign recipient: 550 5.7.1.
    RelayDenied,
    /// The domain is no domain name (fullwidth look-alikes, empty labels): 501 5.1.3.
    BadDomain,
    /// A local part that servers have read as a route: 550 5.7.1.
    RoutedLocalPart,
}

/// Characters that have separated a user from a second destination: RFC 733's percent, UUCP's bang, an `@` in quotes, the
/// colon of source routes. Forms that fold onto them count as well.
const ROUTING: [char; 4] = ['%', '!', '@', ':'];

impl RelayGuard {
    /// As it is configured.
    pub fn new(relay: &Relay) -> Self {
        Self { local_domains: relay.local_domains.clone(), allowed_networks: relay.allowed_networks.clone() }
    }

    /// Judges one recipient of one client, for a backend that is held to plain recipients.
    pub fn judge_plain(&self, client: ClientAddr, recipient: &ForwardPath<'_>) -> RelayVerdict {
        match (self.judge(client, recipient), recipient) {
            (RelayVerdict::Pass, ForwardPath::Mailbox(mailbox))
                if !self.may_relay(client) && !mailbox.local_part.bytes().all(is_plain) =>
            {
                RelayVerdict::RoutedLocalPart
            }
            (verdict, _) => verdict,
        }
    }

    /// Judges one recipient of one client.
    pub fn judge(&self, client: ClientAddr, recipient: &ForwardPath<'_>) -> RelayVerdict {
        let mailbox = match recipient {
            ForwardPath::Postmaster => return RelayVerdict::Pass,
            ForwardPath::Mailbox(mailbox) => mailbox,
        };
        match self.local_domains.contains(&mailbox.domain) {
            Membership::Invalid => RelayVerdict::BadDomain,
            _ if self.may_relay(client) => RelayVerdict::Pass,
            Membership::Foreign => RelayVerdict::RelayDenied,
            Membership::Local if folds_onto(mailbox.local_part, &ROUTING) => RelayVerdict::RoutedLocalPart,
            Membership::Local => RelayVerdict::Pass,
        }
    }

    /// Whether this client may send anywhere.
    pub fn may_relay(&self, client: ClientAddr) -> bool {
        client.is_named() && self.allowed_networks.iter().any(|network| network.contains(&client.ip()))
    }
}

/// What stands in the local parts of people: no quotes, nothing outside ASCII, no sign that anything has ever been routed by.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+' | b'=' | b'\'' | b'&')
}

#[cfg(test)]
mod tests;
