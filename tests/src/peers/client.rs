//! A small SMTP client that says exactly what a scenario wants said, on any host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::log::PATIENCE;
use super::net::{FRONT, Family, Host};

/// One connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

/// A reply: its code and all its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits; 0 if the server closed instead.
    pub code: u16,
    /// Without CRLF.
    pub lines: Vec<String>,
}

impl Client {
    /// Connects from a host to its gateway and reads the greeting.
    pub fn to_gateway(host: &Host, family: Family) -> Self {
        Self::connect(host, family.smtp(FRONT))
    }

    /// Connects from a host and reads the greeting.
    pub fn connect(host: &Host, to: SocketAddr) -> Self {
        let mut client = Self::over(host.connect(to).unwrap_or_else(|error| panic!("{to}: {error}")));
        client.expect(2);
        client
    }

    /// Over a connection on which nothing was read yet, not even a greeting.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { reader: BufReader::new(stream) }
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Reply {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).expect("a reply in time") == 0 {
                return reply;
            }
            let line = line.trim_end().to_owned();
            reply.code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or_default();
            let last = line.as_bytes().get(3) != Some(&b'-');
            reply.lines.push(line);
            if last {
                return reply;
            }
        }
    }

    /// Reads one reply and insists on its first digit.
    pub fn expect(&mut self, class: u16) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.code / 100, class, "{reply:?}");
        reply
    }

    /// Says one command and reads its reply.
    pub fn command(&mut self, command: &str) -> Reply {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the server reads");
    }

    /// Says a command that must succeed.
    pub fn must(&mut self, command: &str) -> Reply {
        let reply = self.command(command);
        assert!((200..400).contains(&reply.code), "{command}: {reply:?}");
        reply
    }

    /// EHLO and an envelope with one recipient, up to 354. The parameters are MAIL's: `BODY=8BITMIME`.
    pub fn envelope(&mut self, from: &str, to: &str, parameters: &str) {
        self.must("EHLO client.test");
        self.must(format!("MAIL FROM:<{from}> {parameters}").trim_end());
        self.must(&format!("RCPT TO:<{to}>"));
        self.must("DATA");
    }

    /// Sends a message, dot-stuffed, to its end; returns the reply to the end of data.
    pub fn mail(&mut self, from: &str, to: &str, message: &[u8]) -> Reply {
        self.envelope(from, to, "");
        self.send(&stuffed(message));
        self.reply()
    }

    /// So many transactions to a foreign domain, which the gateway must refuse.
    pub fn attempt_relay(&mut self, transactions: usize) {
        self.must("EHLO client.test");
        for _ in 0..transactions {
            self.must("MAIL FROM:<a@client.test>");
            assert_eq!(self.command("RCPT TO:<b@elsewhere.test>").code, 550);
            self.must("RSET");
        }
    }

    /// QUIT.
    pub fn quit(mut self) {
        self.command("QUIT");
    }
}

/// A message as it goes over the wire, with its end. Must be empty or end in CRLF.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + message.len() / 64 + 8);
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}
