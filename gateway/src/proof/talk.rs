//! One conversation with a mail server, word for word: each line is sent, its reply awaited, and both are written down.
//!
//! Lock-step on purpose. A probe is polite, and a server that answers out of step must be noticed.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::smtp::ehlo::Offer;
use crate::smtp::reply::{ReplyParse, parse_reply};

use super::answer::Answer;

/// Longest reply read, in bytes.
const REPLY_MAX: usize = 16 * 1024;
/// Why nothing more is asked.
pub(super) const DEADLINE_OVER: &str = "the proof's deadline is over (`proof.deadline`)";
/// Longest line of a transcript, in characters.
const LINE_SHOWN_MAX: usize = 300;

/// A conversation under way.
#[derive(Debug)]
pub(super) struct Talk {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// For one reply.
    patience: Duration,
    /// For everything.
    deadline: Instant,
    transcript: Vec<String>,
}

/// A whole reply.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) answer: Answer,
    pub(super) lines: Vec<String>,
    pub(super) offer: Offer,
}

impl Talk {
    pub(super) fn over(stream: TcpStream, patience: Duration, deadline: Instant) -> Self {
        Self { stream, buffer: Vec::new(), patience, deadline, transcript: Vec::new() }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What was said since this was asked last.
    pub(super) fn take_transcript(&mut self) -> Vec<String> {
        std::mem::take(&mut self.transcript)
    }

    /// Writes down what is no line of SMTP.
    pub(super) fn remark(&mut self, remark: &str) {
        self.transcript.push(format!("   ({remark})"));
    }

    /// Says a line and hears the reply. An error is why there is none.
    pub(super) async fn ask(&mut self, line: &str) -> Result<Heard, String> {
        self.transcript.push(format!("C: {}", shown(line.as_bytes())));
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.hear().await
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let until = self.until();
        match timeout_at(until, self.stream.write_all(bytes)).await {
            Ok(sent) => sent.map_err(|error| self.lost(&error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Hears one reply.
    pub(super) async fn hear(&mut self) -> Result<Heard, String> {
        let until = self.until();
        loop {
            match parse_reply(&self.buffer) {
                ReplyParse::Complete { reply, used } => {
                    let lines: Vec<_> = reply.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
                    let heard = Heard {
                        answer: Answer { code: reply.code, text: lines.join(" ") },
                        offer: Offer::from_reply(&reply),
                        lines,
                    };
                    self.buffer.drain(..used);
                    self.write_down(&heard);
                    return Ok(heard);
                }
                ReplyParse::Faulty(fault) => {
                    let line = self.buffer.split(|&byte| byte == b'\n').next().unwrap_or_default();
                    let line = shown(line);
                    self.transcript.push(format!("S: {line}"));
                    return Err(format!("it answers what is no SMTP reply (`{line}`, {fault:?})"));
                }
                ReplyParse::Incomplete if self.buffer.len() > REPLY_MAX => {
                    return Err("its reply does not end".to_owned());
                }
                ReplyParse::Incomplete => {}
            }
            match timeout_at(until, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(self.lost(&io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.lost(&error)),
                Err(_) => return Err(self.too_slow()),
            }
        }
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

    fn too_slow(&mut self) -> String {
        self.remark("no answer");
        if Instant::now() >= self.deadline {
            return DEADLINE_OVER.to_owned();
        }
        format!("it does not answer within {} s", self.patience.as_secs())
    }

    fn lost(&mut self, error: &io::Error) -> String {
        self.remark("the connection is closed");
        match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closes the connection".to_owned(),
            _ => format!("the connection is lost: {error}"),
        }
    }

    fn write_down(&mut self, heard: &Heard) {
        let last = heard.lines.len().saturating_sub(1);
        for (index, line) in heard.lines.iter().enumerate() {
            let separator = if index == last { ' ' } else { '-' };
            self.transcript.push(format!("S: {}{separator}{}", heard.answer.code, shown(line.as_bytes())));
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
