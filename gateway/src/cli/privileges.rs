//! What the gateway may do: as many files as it needs, and nothing that only root may.

use std::fmt;

use caps::CapSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files besides sessions': listeners, runtimes, the log, the control socket, look-ups.
const OTHER_FILES: u64 = 256;

/// Privileges that cannot be dropped.
#[derive(Debug)]
pub(super) struct DropError(String);

impl fmt::Display for DropError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot drop privileges: {}; start the gateway under its own user", self.0)
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

/// Drops every capability of this thread, and of all it starts, for good.
pub(super) fn drop_all() -> Result<(), DropError> {
    let error = |error: &dyn fmt::Display| DropError(error.to_string());
    rustix::thread::set_no_new_privs(true).map_err(|e| error(&e))?;
    // The bounding set can only be lowered by who has the capability to; whoever has not cannot gain any by it either.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).map_err(|e| error(&e))? {
        caps::clear(None, CapSet::Bounding).map_err(|e| error(&e))?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(|e| error(&e))?;
    }
    Ok(())
}
