//! The gateway's end of the control socket.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::config::Control;
use crate::observe::show::printable;

use super::{BanList, BanStatus, REQUEST_MAX, Status, TOP_MAX, TopList};

/// Conversations at once; more wait.
const CONVERSATIONS_MAX: usize = 16;
/// How long one may take.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(5);

/// A request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// For a [`Status`].
    Status,
    /// For the [`BanStatus`] that is then in force.
    Ban { network: IpNet, seconds: u64, reason: String },
    /// For the [`BanStatus`] that was.
    Unban { network: IpNet },
    /// For a [`BanList`].
    Bans,
    /// For a [`TopList`] of this length at most.
    Top { limit: usize },
}

/// Who answers.
pub trait Answers: Send + Sync + 'static {
    /// What the gateway is doing.
    fn status(&self) -> Status;
    /// Bans a network; the error is a sentence that says why not.
    fn ban(&self, network: IpNet, length: Duration, reason: &str) -> Result<BanStatus, String>;
    /// Takes a ban back; the error is a sentence that says why not.
    fn unban(&self, network: IpNet) -> Result<BanStatus, String>;
    /// All bans.
    fn bans(&self) -> BanList;
    /// The busiest sources.
    fn top(&self, limit: usize) -> TopList;
}

/// The socket; its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Option<StdListener>,
    path: PathBuf,
    /// The folder that was made for it.
    made: Option<PathBuf>,
    allowed_uids: Vec<u32>,
}

/// A control socket that cannot be had, in one sentence with its mend.
#[derive(Debug)]
pub enum SocketError {
    /// Somebody answers on it.
    Running(PathBuf),
    /// Something else has its name.
    NoSocket(PathBuf),
    /// The system's word.
    System(PathBuf, io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(path) => write!(
                f,
                "another gateway answers on the control socket {}; stop it, or give this one its own `control.socket`",
                path.display()
            ),
            Self::NoSocket(path) => write!(
                f,
                "{} exists and is no socket; remove it, or name another file in `control.socket`",
                path.display()
            ),
            Self::System(path, error) => write!(
                f,
                "cannot make the control socket {}: {error}; name a file in a directory that the gateway may write, in \
                 `control.socket`",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SocketError {}

impl ControlSocket {
    /// Makes the socket, in place of one that a gateway left behind.
    pub fn bind(control: &Control) -> Result<Self, SocketError> {
        let path = &control.socket;
        let system = |error| SocketError::System(path.clone(), error);
        clear(path)?;
        let missing = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists());
        if let Some(directory) = missing {
            fs::create_dir_all(directory).map_err(system)?;
        }
        let listener = StdListener::bind(path).map_err(system)?;
        // Whoever may connect is still asked for a uid.
        let mode = if control.allowed_uids.is_empty() { 0o600 } else { 0o666 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(system)?;
        listener.set_nonblocking(true).map_err(system)?;
        Ok(Self {
            listener: Some(listener),
            path: path.clone(),
            made: missing.map(Path::to_owned),
            allowed_uids: control.allowed_uids.clone(),
        })
    }

    /// What was made for it: the socket, and perhaps its folder.
    pub fn own_files(&self) -> Vec<PathBuf> {
        std::iter::once(&self.path).chain(&self.made).cloned().collect()
    }

    /// Answers for ever, on the current runtime.
    pub fn serve(&mut self, answers: Arc<impl Answers>) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let listener = UnixListener::from_std(listener)?;
        let mut allowed_uids = self.allowed_uids.clone();
        allowed_uids.extend([0, rustix::process::geteuid().as_raw()]);
        tokio::spawn(accept(listener, allowed_uids, answers));
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
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

async fn accept(listener: UnixListener, uids: Vec<u32>, answers: Arc<impl Answers>) {
    let uids: Arc<[u32]> = uids.into();
    let conversations = Arc::new(Semaphore::new(CONVERSATIONS_MAX));
    loop {
        let Ok(permit) = conversations.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (uids, answers) = (uids.clone(), answers.clone());
                tokio::spawn(async move {
                    let talk = tokio::time::timeout(CONVERSATION_TIMEOUT, converse(stream, &uids, answers));
                    match talk.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!(%error, "control conversation"),
                        Err(_) => debug!("control conversation took too long"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, uids: &[u32], answers: Arc<impl Answers>) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let answer = if uids.contains(&uid) {
        let mut line = String::new();
        let limit = u64::try_from(REQUEST_MAX).unwrap_or(u64::MAX);
        BufReader::new((&mut stream).take(limit)).read_line(&mut line).await?;
        match serde_json::from_str(&line) {
            // The kernel's tables may be large, and the log and the health checks live on this thread.
            Ok(request) => {
                tokio::task::spawn_blocking(move || answer(request, &*answers)).await.map_err(io::Error::other)??
            }
            Err(error) => json!({ "error": format!("not understood: {error}") }).to_string(),
        }
    } else {
        json!({ "error": format!("uid {uid} may not ask; add it to `control.allowed_uids`") }).to_string()
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.shutdown().await
}

fn answer(request: Request, answers: &impl Answers) -> serde_json::Result<String> {
    let or_refusal = |done: Result<BanStatus, String>| match done {
        Ok(ban) => serde_json::to_string(&ban),
        Err(why) => Ok(json!({ "refused": why }).to_string()),
    };
    match request {
        Request::Status => serde_json::to_string(&answers.status()),
        Request::Ban { network, seconds, reason } => {
            or_refusal(answers.ban(network, Duration::from_secs(seconds), &printable(&reason)))
        }
        Request::Unban { network } => or_refusal(answers.unban(network)),
        Request::Bans => serde_json::to_string(&answers.bans()),
        Request::Top { limit } => serde_json::to_string(&answers.top(limit.min(TOP_MAX))),
    }
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
