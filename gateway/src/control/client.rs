//! The administrator's end of the control socket.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::request::Request;
use super::{
    BanList, BanStatus, DrainStatus, EventList, LogStatus, ProgramId, RELOAD_TIMEOUT, ReloadAnswer, RenewAnswer,
    Renewal, SessionList, SessionStatus, Status, TopList, TraceList, UpgradeAnswer,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error(
        "no gateway answers on the control socket {}; it is not running, or has another `control.socket` (name its configuration \
         with -c, or the socket with --socket)",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket's file may not be used.
    #[error("no permission to use the control socket {}; be root, or have your uid in `control.allowed_uids`", .0.display())]
    NoPermission(PathBuf),
    /// The system's word.
    #[error("the control socket {path} does not work: {1}", path = .0.display())]
    System(PathBuf, #[source] io::Error),
    /// The gateway does not talk about this, or not with us: its word.
    #[error("the gateway refuses: {0}")]
    NotAnswered(String),
    /// The gateway understood, and will not: its word.
    #[error("{0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the gateway's answer is not understood ({0}); is it of another version?")]
    Garbled(#[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Error { error: String },
    Refused { refused: String },
    Done(T),
}

/// Asks the gateway behind this socket for its status.
///
/// # Errors
/// If the gateway cannot be asked.
pub fn ask_status(socket: &Path) -> Result<Status, AskError> {
    ask(socket, &Request::Status)
}

/// Has a network banned.
///
/// # Errors
/// If the gateway cannot be asked, or will not: the network is too wide, protected, or the book is full.
pub fn ask_ban(socket: &Path, network: IpNet, length: Duration, reason: &str) -> Result<BanStatus, AskError> {
    ask(socket, &Request::Ban { network, seconds: length.as_secs(), reason: reason.to_owned() })
}

/// Has a ban taken back.
///
/// # Errors
/// If the gateway cannot be asked, or there is no ban of exactly this network.
pub fn ask_unban(socket: &Path, network: IpNet) -> Result<BanStatus, AskError> {
    ask(socket, &Request::Unban { network })
}

/// Asks for all bans.
///
/// # Errors
/// If the gateway cannot be asked.
pub fn ask_bans(socket: &Path) -> Result<BanList, AskError> {
    ask(socket, &Request::Bans)
}

/// Asks for the busiest sources.
///
/// # Errors
/// If the gateway cannot be asked.
pub fn ask_top(socket: &Path, limit: usize) -> Result<TopList, AskError> {
    ask(socket, &Request::Top { limit })
}

/// Has the configuration read again; waits for what comes of it. With `program`, another one than the gateway runs by hears
/// that it is to be an upgrade.
///
/// # Errors
/// If the gateway cannot be asked. That nothing came of the reload is an answer.
pub fn ask_reload(socket: &Path, program: Option<ProgramId>) -> Result<ReloadAnswer, AskError> {
    ask(socket, &Request::Reload { program })
}

/// Asks how a successor is to be started.
///
/// # Errors
/// If the gateway cannot be asked, or not by us.
pub fn ask_upgrade(socket: &Path) -> Result<UpgradeAnswer, AskError> {
    ask(socket, &Request::Upgrade)
}

/// Asks for events behind the one with this number.
///
/// # Errors
/// If the gateway cannot be asked.
pub fn ask_events(socket: &Path, after: u64) -> Result<EventList, AskError> {
    ask(socket, &Request::Events { after })
}

/// Asks who is connected.
///
/// # Errors
/// If the gateway cannot be asked.
pub fn ask_sessions(socket: &Path, limit: usize) -> Result<SessionList, AskError> {
    ask(socket, &Request::Sessions { limit })
}

/// Has a session ended.
///
/// # Errors
/// If the gateway cannot be asked, or there is no such session.
pub fn ask_kill(socket: &Path, session: u64) -> Result<SessionStatus, AskError> {
    ask(socket, &Request::Kill { session })
}

/// Follows a network for a few seconds more, and asks for what was said since; without `after`, from now on.
///
/// # Errors
/// If the gateway cannot be asked, or follows too many already.
pub fn ask_trace(socket: &Path, network: IpNet, after: Option<u64>) -> Result<TraceList, AskError> {
    ask(socket, &Request::Trace { network, after })
}

/// Has another level logged, for a time.
///
/// # Errors
/// If the gateway cannot be asked, or does not take the level.
pub fn ask_log(socket: &Path, level: &str, seconds: Option<u64>) -> Result<LogStatus, AskError> {
    ask(socket, &Request::Log { level: level.to_owned(), seconds })
}

/// Takes a backend out or back in, or one of its servers.
///
/// # Errors
/// If the gateway cannot be asked, or has no such backend.
pub fn ask_drain(socket: &Path, backend: &str, server: Option<&str>, draining: bool) -> Result<DrainStatus, AskError> {
    let (backend, server) = (backend.to_owned(), server.map(str::to_owned));
    ask(socket, &Request::Drain { backend, server, draining })
}

/// Hands a renewed certificate over.
///
/// # Errors
/// If the gateway cannot be asked, takes none from this user, or lists no such pair.
pub fn ask_renew(socket: &Path, renewal: Renewal) -> Result<RenewAnswer, AskError> {
    ask(socket, &Request::Renew(renewal))
}

fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, AskError> {
    let mut line = String::new();
    let heard = BufReader::new(begin(socket, request)?).read_line(&mut line);
    heard.map_err(|error| AskError::System(socket.to_owned(), error))?;
    understood(&line)
}

/// Sends a request.
pub(super) fn begin(socket: &Path, request: &Request) -> Result<UnixStream, AskError> {
    let send = || {
        let mut stream = UnixStream::connect(socket)?;
        let patience = if matches!(request, Request::Reload { .. }) { RELOAD_TIMEOUT } else { TIMEOUT };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut request = serde_json::to_vec(request)?;
        request.push(b'\n');
        stream.write_all(&request)?;
        Ok(stream)
    };
    send().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(socket.to_owned()),
        io::ErrorKind::PermissionDenied => AskError::NoPermission(socket.to_owned()),
        _ => AskError::System(socket.to_owned(), error),
    })
}

/// What an answer says.
pub(super) fn understood<T: DeserializeOwned>(line: &str) -> Result<T, AskError> {
    match serde_json::from_str(line).map_err(AskError::Garbled)? {
        Answer::Done(answer) => Ok(answer),
        Answer::Refused { refused } => Err(AskError::Refused(refused)),
        Answer::Error { error } => Err(AskError::NotAnswered(error)),
    }
}
