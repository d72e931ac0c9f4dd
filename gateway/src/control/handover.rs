//! A handover between two processes of one gateway: both ends of the conversation that an upgrade is.
//!
//! It goes over the control socket, by the same lines of JSON; behind the first answer the connection stays. Descriptors come
//! before that line, with a dot for each message of them (unix(7), `SCM_RIGHTS`). Whoever dies is heard at once, for the
//! kernel closes his end. This room knows no word of what is said.

use std::io::{self, BufRead as _, BufReader as StdReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::client::{AskError, begin, understood};
use super::request::Request;

/// Descriptors of one message; the kernel takes 253.
const DESCRIPTORS_MAX: usize = 128;
/// Stands for descriptors, before the line.
const DOT: u8 = b'.';
/// How long a word may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest word of a successor in bytes: it has little to say.
const WORD_MAX: u64 = 4096;
/// Longest word of a predecessor in bytes: more than full books of bans and reputations make.
const STATE_MAX: u64 = 1 << 29;

/// The process that takes over, as the running gateway sees it.
#[derive(Debug)]
pub struct Successor {
    stream: BufReader<UnixStream>,
    /// Its number.
    pub process: i32,
}

impl Successor {
    pub(super) fn new(stream: UnixStream, process: i32) -> Self {
        Self { stream: BufReader::new(stream), process }
    }

    /// Says something, with descriptors before it.
    ///
    /// # Errors
    /// The other is gone, or does not listen.
    pub async fn offer(&mut self, descriptors: &[BorrowedFd<'_>], word: &impl Serialize) -> io::Result<()> {
        for some in descriptors.chunks(DESCRIPTORS_MAX) {
            let stream = self.stream.get_ref();
            let sending = stream.async_io(Interest::WRITABLE, || send_descriptors(stream.as_fd(), some));
            timeout(SEND_TIMEOUT, sending).await??;
        }
        self.say(word).await
    }

    /// Says something.
    ///
    /// # Errors
    /// The other is gone, or does not listen.
    pub async fn say(&mut self, word: &impl Serialize) -> io::Result<()> {
        timeout(SEND_TIMEOUT, self.stream.write_all(&line(word)?)).await?
    }

    /// The next thing that it says.
    ///
    /// # Errors
    /// It is gone, or says nothing in time, or something else.
    pub async fn hear<T: DeserializeOwned>(&mut self, patience: Duration) -> io::Result<T> {
        let mut line = String::new();
        timeout(patience, (&mut self.stream).take(WORD_MAX).read_line(&mut line)).await??;
        word(&line)
    }
}

/// The running gateway, as the process sees it that takes over.
#[derive(Debug)]
pub struct Predecessor(StdReader<StdStream>);

impl Predecessor {
    /// Asks the gateway behind this socket to hand over; what it offers.
    ///
    /// # Errors
    /// It will not, or there is none.
    pub fn ask<T: DeserializeOwned>(socket: &Path, version: u32) -> Result<(Self, T, Vec<OwnedFd>), AskError> {
        let stream = begin(socket, &Request::TakeOver { version })?;
        let failed = |error| AskError::System(socket.to_owned(), error);
        let mut descriptors = Vec::new();
        let first = loop {
            let byte = receive_descriptors(&stream, &mut descriptors).map_err(failed)?;
            if byte != DOT {
                break byte;
            }
        };
        stream.set_write_timeout(Some(SEND_TIMEOUT)).map_err(failed)?;
        let mut predecessor = Self(StdReader::new(stream));
        let mut line = String::from(char::from(first));
        (&mut predecessor.0).take(STATE_MAX).read_line(&mut line).map_err(failed)?;
        Ok((predecessor, understood(&line)?, descriptors))
    }

    /// Says something.
    ///
    /// # Errors
    /// The other is gone, or does not listen.
    pub fn say(&mut self, word: &impl Serialize) -> io::Result<()> {
        self.0.get_mut().write_all(&line(word)?)
    }

    /// The next thing that it says; without `patience` it may take for ever. `None`: it has said everything.
    ///
    /// # Errors
    /// It says nothing in time, or something else.
    pub fn hear<T: DeserializeOwned>(&mut self, patience: Option<Duration>) -> io::Result<Option<T>> {
        self.0.get_ref().set_read_timeout(patience)?;
        let mut line = String::new();
        match (&mut self.0).take(STATE_MAX).read_line(&mut line)? {
            0 => Ok(None),
            _ => word(&line).map(Some),
        }
    }
}

fn line(word: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    Ok(line)
}

fn word<T: DeserializeOwned>(line: &str) -> io::Result<T> {
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is gone"));
    }
    Ok(serde_json::from_str(line)?)
}

fn send_descriptors(stream: BorrowedFd<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    sendmsg(stream, &[IoSlice::new(&[DOT])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One byte, and what came with it.
fn receive_descriptors(stream: &StdStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<u8> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed the connection"));
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Seek as _;
    use std::os::unix::net::UnixListener as StdListener;

    #[tokio::test]
    async fn descriptors_go_over_with_the_first_word_and_a_gone_one_is_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = StdListener::bind(&path).unwrap();
        let files: Vec<File> = (0..300).map(|_| tempfile::tempfile().unwrap()).collect();
        for (number, mut file) in files.iter().enumerate() {
            write!(file, "{number}").unwrap();
        }
        let taking_over = std::thread::spawn(move || {
            let (mut predecessor, word, descriptors) = Predecessor::ask::<String>(&path, 7).unwrap();
            assert_eq!((word.as_str(), descriptors.len()), ("offer", 300));
            for (number, descriptor) in descriptors.into_iter().enumerate() {
                let (mut file, mut text) = (File::from(descriptor), String::new());
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, number.to_string());
            }
            predecessor.say(&"ready").unwrap();
            assert_eq!(predecessor.hear::<String>(None).unwrap().as_deref(), Some("go"));
            assert_eq!(predecessor.hear::<String>(None).unwrap(), None);
        });
        let (stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        StdReader::new(&stream).read_line(&mut asked).unwrap();
        assert_eq!(asked, "{\"verb\":\"take-over\",\"version\":7}\n");
        stream.set_nonblocking(true).unwrap();
        let mut successor = Successor::new(UnixStream::from_std(stream).unwrap(), 0);
        let descriptors: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        successor.offer(&descriptors, &"offer").await.unwrap();
        assert_eq!(successor.hear::<String>(SEND_TIMEOUT).await.unwrap(), "ready");
        let silent = successor.hear::<String>(Duration::from_millis(10)).await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        successor.say(&"go").await.unwrap();
        drop(successor);
        taking_over.join().unwrap();
    }
}
