//! The relay guard: strangers may send to local domains and to nobody else.

use crate::identity::ClientAddr;
use crate::policy::domains::DomainSet;
use crate::smtp::address::ForwardPath;

/// Whose mail may go where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayGuard {
    /// Domains everybody may send to.
    pub local_domains: DomainSet,
    /// Networks that may send anywhere.
    pub allowed_networks: Vec<ipnet::IpNet>,
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
    /// A local part that servers have read as a route (`%`, `!`, `@` inside a quoted string): 550 5.7.1.
    RoutedLocalPart,
}

impl RelayGuard {
    /// Judges one recipient of one client.
    pub fn judge(&self, client: ClientAddr, recipient: &ForwardPath<'_>) -> RelayVerdict {
        let _ = (client, recipient);
        todo!()
    }
}
