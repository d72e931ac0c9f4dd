//! What the gateway may do: as many files as it needs, and nothing that only root may.
//!
//! Order matters. Sockets and the kernel side are had before; threads come after, for capabilities belong to threads.

use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use caps::errors::CapsError;
use caps::securebits::set_keepcaps;
use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tracing::{info, warn};

use crate::config::Config;
use crate::service::Bound;

use super::failure::{BAD_CONFIG, Failure};

/// Files besides sessions': listeners, runtimes, the log, the control socket, look-ups.
const OTHER_FILES: u64 = 256;

/// Whom a gateway becomes that root started, where the configuration does not say; the first of them that there is.
const USERS: [&str; 2] = ["smtp-gateway", "nobody"];

/// Privileges that cannot be dropped, or that are missing.
#[derive(Debug, thiserror::Error)]
pub(super) enum DropError {
    /// Needed by this backend's identity.
    #[error(
        "backend `{0}` has `identity = \"transparent\"`, which needs the capability CAP_NET_RAW: start the gateway as root, or let \
         systemd give it that capability (AmbientCapabilities=CAP_NET_RAW)"
    )]
    NoNetRaw(String),
    /// `server.user` names nobody.
    #[error("`server.user` is `{0}`, and there is no such user; make it with `useradd --system {0}`, or name another")]
    NoUser(String),
    /// The kernel will not drop capabilities.
    #[error("cannot drop privileges: {0}; start the gateway under its own user")]
    Capabilities(#[from] CapsError),
    /// The system will not let it become the user.
    #[error("cannot become the user `{0}`: {1}; start the gateway under its own user")]
    Become(String, #[source] io::Error),
}

impl DropError {
    pub(super) fn into_failure(self) -> Failure {
        match self {
            // Starting again does not mend it.
            Self::NoUser(_) => Failure { code: BAD_CONFIG, message: self.to_string() },
            other => Failure::new(other),
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

/// Drops every privilege of this thread, and of all it starts, for good: root becomes `server.user`, and no capability is
/// kept but CAP_NET_RAW where connections are made from clients' addresses. What the gateway must still reach is handed to
/// that user first. Returns a sentence where something of root remains.
///
/// # Errors
/// Where what was asked for cannot be done; the gateway must not run then.
pub(super) fn drop_all(bound: &Bound) -> Result<Option<String>, DropError> {
    let kept = kept(bound.config())?;
    // The bounding set can only be lowered by who has the capability to; whoever has not cannot gain any by it either.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    let remains = match user(bound.config())? {
        _ if !Uid::effective().is_root() => None,
        Some(user) => {
            hand_over(bound, &user);
            become_user(&user, !kept.is_empty()).map_err(|error| DropError::Become(user.name.clone(), error))?;
            info!(user = user.name, "root is given up");
            None
        }
        None => {
            let told = format!(
                "there is neither a user `{}` nor `{}`, so the gateway stays root, though without its capabilities: make a \
                 user with `useradd --system {0}`, or name one in `server.user`",
                USERS[0], USERS[1]
            );
            warn!("{told}");
            Some(told)
        }
    };
    drop_capabilities(&kept)?;
    leave_no_core();
    Ok(remains)
}

/// Users' passwords and the keys of certificates pass through this process's memory: no core dump is made of it, and nobody but
/// root looks into it. A change of the user would undo that.
fn leave_no_core() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "core dumps cannot be switched off, and would hold secrets");
    }
}

/// Whether a running gateway still has what this configuration needs.
///
/// # Errors
/// Names what it gave up at its start.
pub(super) fn check(config: &Config) -> Result<(), DropError> {
    kept(config).map(drop)
}

/// The capabilities that are needed after the start.
fn kept(config: &Config) -> Result<CapsHashSet, DropError> {
    let mut kept = CapsHashSet::new();
    if let Some(backend) = config.backends.iter().find(|backend| backend.identity.is_transparent()) {
        if !caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_RAW)? {
            return Err(DropError::NoNetRaw(backend.name.clone()));
        }
        kept.insert(Capability::CAP_NET_RAW);
    }
    Ok(kept)
}

/// Whom root is to become.
fn user(config: &Config) -> Result<Option<User>, DropError> {
    // A user that cannot be looked up is none.
    let find = |name: &str| User::from_name(name).ok().flatten();
    match &config.server.user {
        Some(name) => find(name).map(Some).ok_or_else(|| DropError::NoUser(name.clone())),
        None => Ok(USERS.into_iter().find_map(find)),
    }
}

/// The control socket, the state directory and the kernel side's pins, which another run of the gateway takes over.
fn hand_over(bound: &Bound, user: &User) {
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let control = bound.own_files().into_iter().try_for_each(|path| chown(path, Some(uid), Some(gid)));
    let pins = chown_tree(&bound.config().xdp.pins, uid, gid);
    let state = bound.state().map_or(Ok(()), |state| chown_tree(state, uid, gid));
    for (what, done) in [("control socket", control), ("pins", pins), ("state directory", state)] {
        if let Err(error) = done {
            warn!(%error, user = user.name, "the {what} cannot be given to the gateway's user");
        }
    }
}

/// A folder and all in it; no folder is fine, and links are not followed.
fn chown_tree(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if metadata.is_symlink() {
        return Ok(());
    }
    if metadata.is_dir() {
        for entry in path.read_dir()? {
            chown_tree(&entry?.path(), uid, gid)?;
        }
    }
    if (metadata.uid(), metadata.gid()) == (uid, gid) { Ok(()) } else { chown(path, Some(uid), Some(gid)) }
}

/// Groups first: whoever is no longer root may not change them.
fn become_user(user: &User, keep_capabilities: bool) -> io::Result<()> {
    if keep_capabilities {
        set_keepcaps(true).map_err(io::Error::other)?;
    }
    setgroups(&[user.gid])?;
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, user.uid)?;
    if keep_capabilities {
        set_keepcaps(false).map_err(io::Error::other)?;
    }
    // Said of what the kernel did, not of what was asked for.
    match (Uid::effective(), Gid::effective()) {
        (uid, gid) if uid == user.uid && gid == user.gid => Ok(()),
        (uid, gid) => Err(io::Error::other(format!("it is uid {uid} and gid {gid} after all"))),
    }
}

fn drop_capabilities(kept: &CapsHashSet) -> Result<(), DropError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| CapsError::from(error.to_string()))?;
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, kept)?;
    }
    Ok(())
}
