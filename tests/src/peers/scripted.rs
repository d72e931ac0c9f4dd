//! A mail server that does what a scenario wants, on loopback: for what no server in good health does, such as to answer
//! at great length, to read slowly, or to fall silent.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::local::address;

/// One session with whoever connected.
#[derive(Debug)]
pub struct Dialog {
    reader: BufReader<TcpStream>,
    /// What the scenario wants to know later of this session.
    pub notes: Vec<String>,
}

/// What a scenario makes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The scenario has said what there is to say.
    Given,
    /// As usual: 250, with extensions for EHLO, 354 for DATA, and 221 with the connection's end for QUIT.
    Usual,
    /// The connection is closed as it stands.
    Close,
}

/// Starts one. `behave` is asked about every command, without its CRLF, on the thread of its connection; the threads end
/// with their connections.
pub fn start(behave: impl Fn(&mut Dialog, &str) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((address(), 0)).expect("a listener");
    let place = listener.local_addr().expect("its address");
    let behave = Arc::new(behave);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let behave = behave.clone();
            thread::spawn(move || Dialog { reader: BufReader::new(stream), notes: Vec::new() }.serve(&*behave));
        }
    });
    place
}

impl Dialog {
    fn serve(mut self, behave: &impl Fn(&mut Self, &str) -> Answer) {
        self.say("220 backend\r\n");
        let mut line = String::new();
        while self.reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            let command = line.trim_end().to_owned();
            line.clear();
            match behave(&mut self, &command) {
                Answer::Given => {}
                Answer::Close => return,
                Answer::Usual => match command.get(..4).unwrap_or_default() {
                    "EHLO" => self.say("250-backend\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
                    "DATA" => self.say("354 go on\r\n"),
                    "QUIT" => return self.say("221 bye\r\n"),
                    _ => self.say("250 Ok\r\n"),
                },
            }
        }
    }

    /// Says it. Whoever does not listen any more is seen when the next command does not come.
    pub fn say(&mut self, text: &str) {
        let _ = self.reader.get_mut().write_all(text.as_bytes());
    }

    /// The next line, which is no command; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        // Whoever is gone says nothing more.
        let _ = self.reader.read_line(&mut line);
        line.trim_end().to_owned()
    }

    /// Reads so many bytes at most, as they come; none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.reader.read(buffer).unwrap_or(0)
    }
}
