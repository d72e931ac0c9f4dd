//! What the gateway may do: as many files as it needs, and nothing that only root may.

use std::fmt;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::Config;

/// Files besides sessions': listeners, runtimes, the log, the control socket, look-ups.
const OTHER_FILES: u64 = 256;

/// Privileges that cannot be dropped, or that are missing.
#[derive(Debug)]
pub(super) enum DropError {
    /// Needed by this backend's identity.
    NoNetRaw(String),
    Other(String),
}

impl fmt::Display for DropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNetRaw(backend) => write!(
                f,
                "backend `{backend}` has `identity = \"transparent\"`, which needs the capability CAP_NET_RAW: start the \
                 gateway as root, or let systemd give it that capability (AmbientCapabilities=CAP_NET_RAW)"
            ),
            Self::Other(error) => write!(f, "cannot drop privileges: {error}; start the gateway under its own user"),
        }
    }
}

/// Raises the soft limit of open files as far as it may; a session needs two.
pub(super) fn raise_open_files(sessions: usize) {
    let needed = u64::try_from(sessions).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let enough = Rlimit { current: Some(needed), maximum: limit.maximum.map(|hard| hard.max(needed)) };
    // Only root may raise the hard limit; whoever may not is content with all of it.
    if limit.maximum.is_some_and(|hard| hard < needed) && setrlimit(Resource::Nofile, enough).is_ok() {
        return;
    }
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        warn!(%error, "cannot raise the limit of open files");
    }
    if let Some(open_files) = getrlimit(Resource::Nofile).current
        && open_files < needed
    {
        warn!(
            open_files,
            needed, "too few open files for limits.sessions; raise LimitNOFILE= or lower limits.sessions"
        );
    }
}

/// Drops every capability of this thread, and of all it starts, for good; but not CAP_NET_RAW where connections are made
/// from clients' addresses.
pub(super) fn drop_needless(config: &Config) -> Result<(), DropError> {
    let error = |error: &dyn fmt::Display| DropError::Other(error.to_string());
    let mut kept = CapsHashSet::new();
    if let Some(backend) = config.backends.iter().find(|backend| backend.identity.is_transparent()) {
        if !caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_RAW).map_err(|e| error(&e))? {
            return Err(DropError::NoNetRaw(backend.name.clone()));
        }
        kept.insert(Capability::CAP_NET_RAW);
    }
    rustix::thread::set_no_new_privs(true).map_err(|e| error(&e))?;
    // The bounding set can only be lowered by who has the capability to; whoever has not cannot gain any by it either.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).map_err(|e| error(&e))? {
        caps::clear(None, CapSet::Bounding).map_err(|e| error(&e))?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|e| error(&e))?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).map_err(|e| error(&e))?;
    }
    Ok(())
}
