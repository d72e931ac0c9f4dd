//! The gateway's end of the control socket.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::config::Control;
use crate::observe::{events, trace};

use super::not_done::NotDone;
use super::request::{Request, RequestError};
use super::{
    BanList, BanStatus, DrainStatus, EventList, LogStatus, ProgramId, RELOAD_TIMEOUT, RENEWAL_MAX, REQUEST_MAX,
    ReloadAnswer, RenewAnswer, Renewal, SessionList, SessionStatus, Status, Successor, TopList, TraceList,
    UpgradeAnswer,
};

/// Conversations that may wait for their request; when more come, the oldest is given up.
const SILENT_MAX: usize = 64;
/// Answers put together at once; more wait.
const ANSWERS_MAX: usize = 8;
/// How long a conversation may take.
const CONVERSATION_TIMEOUT: Duration = RELOAD_TIMEOUT;
/// How long its request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Who answers.
pub trait Answers: Send + Sync + 'static {
    /// What the gateway is doing.
    fn status(&self) -> Status;
    /// Bans a network.
    ///
    /// # Errors
    /// Says why not.
    fn ban(&self, network: IpNet, length: Duration, reason: &str) -> Result<BanStatus, NotDone>;
    /// Takes a ban back; what it was.
    ///
    /// # Errors
    /// Says why not.
    fn unban(&self, network: IpNet) -> Result<BanStatus, NotDone>;
    /// All bans.
    fn bans(&self) -> BanList;
    /// The busiest sources.
    fn top(&self, limit: usize) -> TopList;
    /// Reads the configuration again, and waits for what comes of it. `program` asks, if it would rather upgrade where it is
    /// another one than runs.
    fn reload(&self, program: Option<ProgramId>) -> ReloadAnswer;
    /// How a successor is to be started.
    fn upgrade(&self) -> UpgradeAnswer;
    /// Hands over to a process that speaks this version.
    ///
    /// # Errors
    /// Another upgrade is under way, or the versions differ: the same process back, and a sentence that says why not.
    fn hand_over(&self, to: Successor, version: u32) -> Result<(), (Successor, String)>;
    /// Who is connected.
    fn sessions(&self, limit: usize) -> SessionList;
    /// Ends a session; what it was doing.
    ///
    /// # Errors
    /// Says why not.
    fn kill(&self, session: u64) -> Result<SessionStatus, NotDone>;
    /// Has another level logged; without a time, until it is told otherwise.
    ///
    /// # Errors
    /// Says why not.
    fn log(&self, level: &str, length: Option<Duration>) -> Result<LogStatus, NotDone>;
    /// Takes a backend out or back in, or one of its servers.
    ///
    /// # Errors
    /// Says why not.
    fn drain(&self, backend: &str, server: Option<&str>, draining: bool) -> Result<DrainStatus, NotDone>;
    /// Takes a renewed certificate from somebody who may read it.
    ///
    /// # Errors
    /// Says why not.
    fn renew(&self, renewal: &Renewal) -> Result<RenewAnswer, NotDone>;
}

/// The socket; its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: StdListener,
    /// What answers on it.
    serving: Option<AbortHandle>,
    path: PathBuf,
    /// Whether the file goes with this process, and stays for no other.
    owns_file: bool,
    /// The folder that was made for it.
    made: Option<PathBuf>,
    allowed_uids: Vec<u32>,
}

/// A control socket that cannot be had, in one sentence with its mend.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers on it.
    #[error(
        "another gateway answers on the control socket {}; stop it, or give this one its own `control.socket`", .0.display()
    )]
    Running(PathBuf),
    /// Something else has its name.
    #[error("{} exists and is no socket; remove it, or name another file in `control.socket`", .0.display())]
    NoSocket(PathBuf),
    /// The system's word.
    #[error(
        "cannot make the control socket {path}: {1}; name a file in a directory that the gateway may write, in `control.socket`",
        path = .0.display()
    )]
    System(PathBuf, #[source] io::Error),
}

impl ControlSocket {
    /// Makes the socket, in place of one that a gateway left behind.
    ///
    /// # Errors
    /// A gateway answers on it, its name is taken, or the system refuses; the file system is then as it was, but for a folder
    /// that may have been made.
    pub fn bind(control: &Control) -> Result<Self, SocketError> {
        let path = &control.socket;
        let system = |error| SocketError::System(path.clone(), error);
        clear(path)?;
        let missing = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists());
        if let Some(directory) = missing {
            fs::create_dir_all(directory).map_err(system)?;
        }
        let listener = StdListener::bind(path).map_err(system)?;
        let mut socket = Self::new(listener, control, missing.map(Path::to_owned)).map_err(system)?;
        socket.own_file();
        Ok(socket)
    }

    /// The one that another process of this gateway hands over, whose file it stays until [`own_file`](Self::own_file).
    ///
    /// # Errors
    /// It cannot be made what the configuration says.
    pub fn adopt(listener: StdListener, control: &Control) -> Result<Self, SocketError> {
        let system = |error| SocketError::System(control.socket.clone(), error);
        Self::new(listener, control, None).map_err(system)
    }

    fn new(listener: StdListener, control: &Control, made: Option<PathBuf>) -> io::Result<Self> {
        // Whoever may connect is still asked for a uid.
        let mode = if control.allowed_uids.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(&control.socket, fs::Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            serving: None,
            path: std::path::absolute(&control.socket)?,
            owns_file: false,
            made,
            allowed_uids: control.allowed_uids.clone(),
        })
    }

    /// Where it is, from the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket itself, for a process that takes over.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The file is this process's from now on.
    pub fn own_file(&mut self) {
        self.owns_file = true;
    }

    /// The file is another process's from now on.
    pub fn leave_file(&mut self) {
        self.owns_file = false;
    }

    /// Answers nobody any more; conversations that have begun go on.
    pub fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }

    /// What was made for it: the socket, and perhaps its folder.
    pub fn own_files(&self) -> Vec<PathBuf> {
        std::iter::once(&self.path).chain(&self.made).cloned().collect()
    }

    /// Answers for ever, on the current runtime. Called again, it does nothing.
    ///
    /// # Errors
    /// The runtime does not take the socket.
    pub fn serve(&mut self, answers: Arc<impl Answers>) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let allowed = Allowed { own: [0, rustix::process::geteuid().as_raw()], others: self.allowed_uids.clone() };
        self.serving = Some(tokio::spawn(accept(listener, allowed.into(), answers)).abort_handle());
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if !self.owns_file {
            return;
        }
        // A user that root became may not be allowed to; whoever comes next takes a dead socket away.
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

/// Removes what a dead gateway left; never what is alive, or no socket.
fn clear(path: &Path) -> Result<(), SocketError> {
    let system = |error| SocketError::System(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(system),
        Err(error) => Err(system(error)),
        Ok(_) => Err(SocketError::Running(path.to_owned())),
    }
}

/// Who may ask.
#[derive(Debug)]
struct Allowed {
    /// Root, and the gateway's own user: they may take its place, too.
    own: [u32; 2],
    /// `control.allowed_uids`
    others: Vec<u32>,
}

async fn accept(listener: UnixListener, allowed: Arc<Allowed>, answers: Arc<impl Answers>) {
    let answering = Arc::new(Semaphore::new(ANSWERS_MAX));
    // Those whose request has not come yet.
    let mut silent: VecDeque<(AbortHandle, Weak<()>)> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                silent.retain(|(_, unasked)| unasked.strong_count() > 0);
                // Who asks does so in an instant. Of those who do not, the oldest has had most time.
                if silent.len() >= SILENT_MAX
                    && let Some((oldest, _)) = silent.pop_front()
                {
                    oldest.abort();
                }
                let unasked = Arc::new(());
                let is_unasked = Arc::downgrade(&unasked);
                let conversation = converse(stream, unasked, allowed.clone(), answering.clone(), answers.clone());
                let conversation = tokio::spawn(async move {
                    match timeout(CONVERSATION_TIMEOUT, conversation).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "control conversation"),
                        Err(_) => debug!("control conversation took too long"),
                    }
                });
                silent.push_back((conversation.abort_handle(), is_unasked));
            }
            Err(error) => {
                warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// `unasked` is let go of when the request is there.
async fn converse(
    mut stream: UnixStream,
    unasked: Arc<()>,
    allowed: Arc<Allowed>,
    answering: Arc<Semaphore>,
    answers: Arc<impl Answers>,
) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let uid = peer.uid();
    let is_own = allowed.own.contains(&uid);
    let answer = if is_own || allowed.others.contains(&uid) {
        let mut line = String::new();
        // Who may ask may not for that say which key the gateway uses.
        let limit = u64::try_from(if is_own { RENEWAL_MAX } else { REQUEST_MAX }).unwrap_or(u64::MAX);
        timeout(REQUEST_TIMEOUT, BufReader::new((&mut stream).take(limit)).read_line(&mut line)).await??;
        drop(unasked);
        match Request::read(&line) {
            Ok(Request::Upgrade | Request::TakeOver { .. }) if !is_own => {
                let why = format!("uid {uid} may not upgrade the gateway; be root, or the gateway's own user");
                json!({ "error": why }).to_string()
            }
            Ok(Request::TakeOver { version }) => {
                let successor = Successor::new(stream, peer.pid().unwrap_or_default());
                let Err((mut successor, why)) = answers.hand_over(successor, version) else { return Ok(()) };
                return successor.say(&json!({ "refused": why })).await;
            }
            Ok(Request::Renew(_)) if !is_own => {
                json!({ "refused": "only root and the gateway's own user hand certificates over" }).to_string()
            }
            // The kernel's tables may be large, and the log and the health checks live on this thread.
            Ok(request) => {
                let permit = answering.acquire_owned().await.map_err(io::Error::other)?;
                let answered = tokio::task::spawn_blocking(move || (answer(request, &*answers), permit));
                answered.await.map_err(io::Error::other)?.0?
            }
            Err(error @ RequestError::NotUnderstood(_)) => json!({ "error": error.to_string() }).to_string(),
            Err(error @ RequestError::Refused(_)) => json!({ "refused": error.to_string() }).to_string(),
        }
    } else {
        json!({ "error": format!("uid {uid} may not ask; add it to `control.allowed_uids`") }).to_string()
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.shutdown().await
}

fn answer(request: Request, answers: &impl Answers) -> serde_json::Result<String> {
    match request {
        Request::Status => serde_json::to_string(&answers.status()),
        Request::Ban { network, seconds, reason } => {
            or_refusal(answers.ban(network, Duration::from_secs(seconds), &reason))
        }
        Request::Unban { network } => or_refusal(answers.unban(network)),
        Request::Bans => serde_json::to_string(&answers.bans()),
        Request::Reload { program } => serde_json::to_string(&answers.reload(program)),
        Request::Upgrade => serde_json::to_string(&answers.upgrade()),
        Request::TakeOver { .. } => Ok(json!({ "error": "a handover is no question" }).to_string()),
        Request::Top { limit } => serde_json::to_string(&answers.top(limit)),
        Request::Events { after } => {
            serde_json::to_string(&EventList { events: events::recent().since(after, events::KEPT_MAX) })
        }
        Request::Sessions { limit } => serde_json::to_string(&answers.sessions(limit)),
        Request::Kill { session } => or_refusal(answers.kill(session)),
        Request::Trace { network, after } => or_refusal(follow(network, after)),
        Request::Drain { backend, server, draining } => {
            or_refusal(answers.drain(&backend, server.as_deref(), draining))
        }
        Request::Renew(renewal) => or_refusal(answers.renew(&renewal)),
        Request::Log { level, seconds } => or_refusal(answers.log(&level, seconds.map(Duration::from_secs))),
    }
}

fn or_refusal<T: Serialize>(done: Result<T, NotDone>) -> serde_json::Result<String> {
    match done {
        Ok(done) => serde_json::to_string(&done),
        Err(why) => Ok(json!({ "refused": why.to_string() }).to_string()),
    }
}

/// Lines of one answer to `trace`.
const TRACE_MAX: usize = 1000;

fn follow(network: IpNet, after: Option<u64>) -> Result<TraceList, NotDone> {
    let last = trace::last();
    if !trace::follow(network.trunc()) {
        let why = "as many clients are followed as there may be; end another `trace` first";
        return Err(NotDone::new(why));
    }
    let lines = trace::since(network, after.unwrap_or(last), TRACE_MAX);
    // Others' lines are skipped, unless this answer was full.
    let last = if lines.len() == TRACE_MAX { lines.last().map_or(last, |line| line.number) } else { last };
    let last = lines.last().map_or(last, |line| line.number.max(last));
    Ok(TraceList { lines, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(path: PathBuf) -> Control {
        Control { socket: path, allowed_uids: Vec::new() }
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/control.sock");
        let control = control(path.clone());
        let live = ControlSocket::bind(&control).unwrap();
        assert!(matches!(ControlSocket::bind(&control), Err(SocketError::Running(_))));
        drop(live);
        assert!(!path.exists());
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        ControlSocket::bind(&control).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(ControlSocket::bind(&control(path.clone())), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
