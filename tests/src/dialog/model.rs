//! A backend that reads what the gateway sends more strictly than any real one would: whatever a lenient server could
//! mistake for something else fails here.

use smtp_gateway::smtp::command::{Command, parse_command};

/// What the backend does when it has understood a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The positive reply.
    Yes,
    /// The positive reply, of two lines.
    YesAtLength,
    /// 550.
    No,
    /// 451.
    Later,
    /// 421, and nothing more.
    Closing,
    /// What is no reply, and nothing more.
    Junk,
    /// The connection is closed.
    Close,
}

/// What a connection has carried, as the backend understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A connection.
    Connection,
    /// A command's line.
    Command(String),
    /// The whole content of a message in DATA, dots taken off.
    Message(Vec<u8>),
    /// The whole content of a message that came in chunks; how it was cut is nobody's business.
    Chunks(Vec<u8>),
}

/// What the backend does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It sends this.
    Say(Vec<u8>),
    /// It closes the connection.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Commands,
    Data,
    Chunk {
        left: usize,
        last: bool,
    },
    /// It has said its last on this connection.
    Gone,
}

/// The backend.
#[derive(Debug)]
pub struct Model {
    /// In order, over all connections.
    pub heard: Vec<Heard>,
    /// Messages it said 250 to.
    pub accepted: usize,
    answers: Vec<Answer>,
    asked: usize,
    offers: String,
    mode: Mode,
    in_transaction: bool,
    recipients: usize,
    /// Of a message in chunks, as far as it has come.
    chunks: Vec<u8>,
    unread: Vec<u8>,
}

impl Model {
    /// `answers` to commands in turn, and then yes to everything; `offers` are EHLO keywords.
    pub fn new(answers: Vec<Answer>, offers: &str) -> Self {
        Self {
            heard: Vec::new(),
            accepted: 0,
            answers,
            asked: 0,
            offers: offers.to_owned(),
            mode: Mode::Commands,
            in_transaction: false,
            recipients: 0,
            chunks: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// The gateway connects.
    pub fn connected(&mut self) -> Deed {
        self.heard.push(Heard::Connection);
        self.mode = Mode::Commands;
        self.in_transaction = false;
        self.recipients = 0;
        self.chunks.clear();
        self.unread.clear();
        Deed::Say(b"220 backend\r\n".to_vec())
    }

    /// The gateway sends bytes.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<Deed> {
        self.unread.extend_from_slice(bytes);
        let mut deeds = Vec::new();
        loop {
            let deed = match self.mode {
                Mode::Commands => self.hear_command(),
                Mode::Data => self.hear_data(),
                Mode::Chunk { left, last } => self.hear_chunk(left, last),
                Mode::Gone => None,
            };
            match deed {
                Some(deed) => deeds.push(deed),
                None => return deeds,
            }
        }
    }

    fn hear_command(&mut self) -> Option<Deed> {
        let end = self.unread.windows(2).position(|pair| pair == b"\r\n")?;
        let line: Vec<u8> = self.unread.drain(..end + 2).take(end).collect();
        assert!(!line.iter().any(|byte| byte.is_ascii_control()), "a control character in `{}`", line.escape_ascii());
        let text = String::from_utf8(line).expect("a command is UTF-8");
        let command = parse_command(text.as_bytes()).unwrap_or_else(|_| panic!("no command: `{text}`"));
        if !matches!(command, Command::Bdat { .. }) {
            self.heard.push(Heard::Command(text.clone()));
        }
        Some(self.obey(&command, &text))
    }

    fn obey(&mut self, command: &Command<'_>, text: &str) -> Deed {
        match command {
            Command::Ehlo(_) => {
                let lines: Vec<&str> = ["backend"].into_iter().chain(self.offers.split(',')).collect();
                let mut reply = Vec::new();
                smtp_gateway::smtp::reply::encode_reply(250, None, &lines.join("\n"), &mut reply);
                Deed::Say(reply)
            }
            Command::Helo(_) => Deed::Say(b"250 backend\r\n".to_vec()),
            Command::IdentityClaim => {
                assert!(text.starts_with("XCLIENT ADDR="), "the gateway's own identity is no `{text}`");
                Deed::Say(b"220 backend\r\n".to_vec())
            }
            Command::Mail { .. } if self.in_transaction => Deed::Say(b"503 nested MAIL\r\n".to_vec()),
            Command::Mail { .. } => {
                let (deed, yes) = self.answer(250);
                (self.in_transaction, self.recipients) = (yes, 0);
                deed
            }
            Command::Rcpt { .. } if !self.in_transaction => Deed::Say(b"503 MAIL first\r\n".to_vec()),
            Command::Rcpt { .. } => {
                let (deed, yes) = self.answer(250);
                self.recipients += usize::from(yes);
                deed
            }
            Command::Data if self.recipients == 0 => Deed::Say(b"554 no valid recipients\r\n".to_vec()),
            Command::Data => {
                let (deed, yes) = self.answer(354);
                if yes {
                    self.mode = Mode::Data;
                }
                deed
            }
            Command::Bdat { length, last } => {
                self.mode = Mode::Chunk { left: usize::try_from(*length).expect("bounded"), last: *last };
                self.hear_chunk_start()
            }
            Command::Rset => {
                self.in_transaction = false;
                self.recipients = 0;
                self.chunks.clear();
                Deed::Say(b"250 reset\r\n".to_vec())
            }
            Command::Quit => Deed::Close,
            _ => panic!("the gateway sends no `{text}`"),
        }
    }

    /// BDAT says nothing before its octets are there.
    fn hear_chunk_start(&mut self) -> Deed {
        match self.mode {
            Mode::Chunk { left, last } => self.hear_chunk(left, last).unwrap_or(Deed::Say(Vec::new())),
            Mode::Commands | Mode::Data | Mode::Gone => Deed::Say(Vec::new()),
        }
    }

    fn hear_data(&mut self) -> Option<Deed> {
        let end = if self.unread.starts_with(b".\r\n") {
            0
        } else {
            self.unread.windows(5).position(|five| five == b"\r\n.\r\n")? + 2
        };
        let stuffed: Vec<u8> = self.unread.drain(..end + 3).take(end).collect();
        let content = unstuffed(&stuffed);
        self.heard.push(Heard::Message(content));
        self.mode = Mode::Commands;
        Some(self.verdict())
    }

    fn hear_chunk(&mut self, left: usize, last: bool) -> Option<Deed> {
        if self.unread.len() < left {
            return None;
        }
        self.chunks.extend(self.unread.drain(..left));
        self.mode = Mode::Commands;
        if last {
            self.heard.push(Heard::Chunks(std::mem::take(&mut self.chunks)));
        }
        if self.recipients == 0 {
            return Some(Deed::Say(b"554 no valid recipients\r\n".to_vec()));
        }
        // What precedes the last may be cut in any way, and so takes no answer of its own.
        Some(if last { self.verdict() } else { Deed::Say(b"250 yes\r\n".to_vec()) })
    }

    fn verdict(&mut self) -> Deed {
        let (deed, yes) = self.answer(250);
        self.accepted += usize::from(yes);
        self.in_transaction = false;
        self.recipients = 0;
        deed
    }

    /// The next answer, and whether it is positive.
    fn answer(&mut self, code: u16) -> (Deed, bool) {
        let answer = self.answers.get(self.asked).copied().unwrap_or(Answer::Yes);
        self.asked += 1;
        let text = match answer {
            Answer::Yes => format!("{code} yes\r\n"),
            Answer::YesAtLength => format!("{code}-yes\r\n{code} indeed\r\n"),
            Answer::No => "550 no\r\n".to_owned(),
            Answer::Later => "451 later\r\n".to_owned(),
            Answer::Closing => "421 closing\r\n".to_owned(),
            Answer::Junk => "junk\r\n".to_owned(),
            Answer::Close => {
                self.mode = Mode::Gone;
                return (Deed::Close, false);
            }
        };
        if matches!(answer, Answer::Closing | Answer::Junk) {
            self.mode = Mode::Gone;
        }
        (Deed::Say(text.into_bytes()), matches!(answer, Answer::Yes | Answer::YesAtLength))
    }
}

/// Content without its stuffed dots; fails on every bare CR or LF and on every line that some server could take for an end.
fn unstuffed(stuffed: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    for line in stuffed.split_inclusive(|&byte| byte == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("bare LF in `{}`", stuffed.escape_ascii()));
        assert!(!text.contains(&b'\r'), "bare CR in `{}`", stuffed.escape_ascii());
        assert_ne!(text, b".", "an end of data inside `{}`", stuffed.escape_ascii());
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}
