//! One conversation with a mail server, word for word: each line is sent, its reply awaited, and both are written down.
//!
//! Lock-step on purpose. A probe is polite, and a server that answers out of step must be noticed.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::smtp::reply::{ReplyFault, ReplyParse, read_reply};
use crate::tls::{Connector, TlsStream};

use super::answer::Answer;
use super::probe::Problem;

/// Longest line of a transcript, in characters.
const LINE_SHOWN_MAX: usize = 300;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConversationFault {
    #[error("the proof's deadline is over (`proof.deadline`)")]
    DeadlineOver,
    #[error("it does not answer within {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("it closes the connection")]
    Closed,
    #[error("the connection is lost: {0}")]
    Lost(#[source] io::Error),
    #[error("TLS does not come about: {0}")]
    Tls(#[source] io::Error),
    #[error("its reply does not end")]
    Endless,
    /// The line, and the rule that it broke.
    #[error("it answers what is no SMTP reply (`{0}`, {1})")]
    NoReply(String, String),
}

impl From<ConversationFault> for Problem {
    fn from(fault: ConversationFault) -> Self {
        Self::Other(fault.to_string())
    }
}

/// A conversation under way.
#[derive(Debug)]
pub(super) struct Conversation {
    stream: TlsStream,
    buffer: Vec<u8>,
    /// For one reply.
    patience: Duration,
    /// For everything.
    deadline: Instant,
    transcript: Vec<String>,
}

impl Conversation {
    pub(super) fn over(stream: TcpStream, patience: Duration, deadline: Instant) -> Self {
        Self { stream: TlsStream::plain(stream), buffer: Vec::new(), patience, deadline, transcript: Vec::new() }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.stream.socket()
    }

    /// What was said since this was asked last.
    pub(super) fn take_transcript(&mut self) -> Vec<String> {
        std::mem::take(&mut self.transcript)
    }

    /// Writes down what is no line of SMTP.
    pub(super) fn remark(&mut self, remark: &str) {
        self.transcript.push(format!("   ({remark})"));
    }

    /// Says a line and hears the reply.
    pub(super) async fn ask(&mut self, line: &str) -> Result<Answer, ConversationFault> {
        self.transcript.push(format!("C: {}", shown(line.as_bytes())));
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.hear().await
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), ConversationFault> {
        let until = self.until();
        match timeout_at(until, self.stream.write_all(bytes)).await {
            Ok(sent) => sent.map_err(|error| self.lost(error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Goes over to TLS.
    pub(super) async fn secure(&mut self, connector: &Connector) -> Result<(), ConversationFault> {
        self.remark("TLS begins");
        match timeout_at(self.until(), self.stream.secure(connector)).await {
            Ok(secured) => secured.map_err(ConversationFault::Tls),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Hears one reply.
    pub(super) async fn hear(&mut self) -> Result<Answer, ConversationFault> {
        self.hear_raw().await?;
        let ReplyParse::Complete { reply, used } = read_reply(&self.buffer) else {
            return Err(self.no_reply());
        };
        let lines: Vec<_> = reply.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let answer = Answer { code: reply.code, text: lines.join(" ") };
        self.heard(used);
        Ok(answer)
    }

    /// Sends lines, if any, and writes them down.
    pub(super) async fn say(&mut self, lines: &[u8]) -> Result<(), ConversationFault> {
        if lines.is_empty() {
            return Ok(());
        }
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            self.transcript.push(format!("C: {}", shown(line)));
        }
        self.send(lines).await
    }

    /// Waits for a whole reply; everything that is unread, which begins with it.
    pub(super) async fn hear_raw(&mut self) -> Result<&[u8], ConversationFault> {
        let until = self.until();
        loop {
            match read_reply(&self.buffer) {
                ReplyParse::Complete { .. } => return Ok(&self.buffer),
                ReplyParse::Faulty(_) => return Err(self.no_reply()),
                ReplyParse::Incomplete => {}
            }
            match timeout_at(until, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.lost(error)),
                Err(_) => return Err(self.too_slow()),
            }
        }
    }

    /// So much of what was heard was used: a whole reply, which is written down.
    pub(super) fn heard(&mut self, used: usize) {
        if let ReplyParse::Complete { reply, .. } = read_reply(&self.buffer[..used.min(self.buffer.len())]) {
            let lines: Vec<_> = reply.lines().map(shown).collect();
            let last = lines.len().saturating_sub(1);
            for (index, line) in lines.iter().enumerate() {
                let separator = if index == last { ' ' } else { '-' };
                self.transcript.push(format!("S: {}{separator}{line}", reply.code));
            }
        }
        self.buffer.drain(..used);
    }

    fn no_reply(&mut self) -> ConversationFault {
        let why = match read_reply(&self.buffer) {
            ReplyParse::Faulty(ReplyFault::TooLong) => return ConversationFault::Endless,
            ReplyParse::Faulty(fault) => format!("{fault:?}"),
            ReplyParse::Complete { .. } | ReplyParse::Incomplete => String::new(),
        };
        let line = shown(self.buffer.split(|&byte| byte == b'\n').next().unwrap_or_default());
        self.transcript.push(format!("S: {line}"));
        ConversationFault::NoReply(line, why)
    }

    /// Whether it says something that nobody asked for, within this time.
    pub(super) async fn goes_on(&mut self, wait: Duration) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let until = (Instant::now() + wait).min(self.deadline);
        matches!(timeout_at(until, self.stream.read_buf(&mut self.buffer)).await, Ok(Ok(1..)))
    }

    /// Takes its leave; whatever comes of it.
    pub(super) async fn quit(mut self) {
        self.patience = self.patience.min(Duration::from_secs(2));
        let _ = self.ask("QUIT").await;
    }

    fn until(&self) -> Instant {
        (Instant::now() + self.patience).min(self.deadline)
    }

    fn too_slow(&mut self) -> ConversationFault {
        self.remark("no answer");
        if Instant::now() >= self.deadline {
            return ConversationFault::DeadlineOver;
        }
        ConversationFault::TooSlow(self.patience)
    }

    fn lost(&mut self, error: io::Error) -> ConversationFault {
        self.remark("the connection is closed");
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ConversationFault::Closed,
            _ => ConversationFault::Lost(error),
        }
    }
}

/// Bytes for a terminal: control characters are written out.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line = String::new();
    for character in text.trim_end_matches(['\r', '\n']).chars().take(LINE_SHOWN_MAX) {
        if character.is_control() {
            // Writing to memory cannot fail.
            let _ = write!(line, "\\x{:02x}", u32::from(character));
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn transcripts_do_not_steer_the_terminal() {
        assert_eq!(shown(b"RCPT TO:<a@b\0@c>\r\n"), "RCPT TO:<a@b\\x00@c>");
        assert_eq!(shown(b"550 \x1b[2Jgo away"), "550 \\x1b[2Jgo away");
        assert_eq!(shown("ü".as_bytes()), "ü");
    }
}
