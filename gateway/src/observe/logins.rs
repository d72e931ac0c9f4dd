//! The log's line about a login. Of the name only the domain shows at INFO, unless `log.mailboxes` says otherwise.

use std::fmt::Display;

use tracing::{debug, info};

use super::counters::LoginOutcome;
use super::declare::Label as _;
use super::log::domain_only;

/// An exchange of AUTH that is over.
#[derive(Debug)]
pub struct LoginRecord<'a, C> {
    /// The session's.
    pub session: u64,
    /// Who the gateway believes the client to be.
    pub client: C,
    /// Name of the backend.
    pub backend: &'a str,
    /// Whether names show whole.
    pub mailboxes: bool,
    /// Who the client said that it is.
    pub name: Option<&'a str>,
    /// How it ended.
    pub outcome: LoginOutcome,
}

/// One line for a login.
pub fn login_over<C: Display>(record: &LoginRecord<'_, C>) {
    let LoginRecord { session, client, backend, mailboxes, name, outcome } = record;
    let name = name.unwrap_or_default();
    let shown = if *mailboxes { name.to_owned() } else { domain_only(name) };
    info!(session, %client, backend, name = shown, outcome = outcome.as_str(), "login");
    if !mailboxes {
        debug!(session, name, "login");
    }
}
