//! Tests over real sockets, with a client of their own, and of the codecs.

mod bodies;
mod codecs;
mod commands;
mod faults;
mod identity;
mod keeping;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::{Client, Event, Message, Observer, Options, Sink, start};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// A quiet sink for `local.test`, and what it tells.
fn sink(change: impl FnOnce(&mut Options)) -> (Sink, Events) {
    let (observer, events) = Observer::channel();
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        hostname: "sink.test".into(),
        local_domains: vec!["local.test".into()],
        quiet: true,
        workers: 1,
        observer: Some(observer),
        ..Options::default()
    };
    change(&mut options);
    (start(options).unwrap(), Events(events))
}

struct Events(Receiver<Event>);

impl Events {
    fn next(&self) -> Event {
        self.0.recv_timeout(PATIENCE).unwrap()
    }

    fn client(&self) -> Arc<Client> {
        match self.next() {
            Event::Client(client) => client,
            other => panic!("{other:?} instead of a client"),
        }
    }

    /// The next message; clients before it are passed over.
    fn message(&self) -> Message {
        loop {
            match self.next() {
                Event::Message(message) => return message,
                Event::Client(_) => {}
                Event::Denied(denied) => panic!("{denied:?} instead of a message"),
            }
        }
    }
}

/// One connection to a sink.
struct Dialog(BufReader<TcpStream>);

impl Dialog {
    /// Connects and reads nothing.
    fn connect(sink: &Sink) -> Self {
        let stream = TcpStream::connect(sink.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Connects, and greets as `client.test`.
    fn greeted(sink: &Sink) -> Self {
        let mut dialog = Self::connect(sink);
        assert_eq!(dialog.reply(), "220 sink.test ESMTP sink\r\n");
        dialog.expect("EHLO client.test", "250");
        dialog
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// One whole reply.
    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            assert_ne!(self.0.read_line(&mut reply).unwrap(), 0, "closed after {reply:?}");
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    /// Sends one command, and returns its reply.
    fn ask(&mut self, command: impl AsRef<str>) -> String {
        self.send(format!("{}\r\n", command.as_ref()));
        self.reply()
    }

    /// Sends one command, and checks how its reply begins.
    fn expect(&mut self, command: impl AsRef<str>, beginning: &str) {
        let reply = self.ask(command.as_ref());
        assert!(reply.starts_with(beginning), "{:?} was answered {reply:?}, not {beginning}", command.as_ref());
    }

    /// Begins a message to `someone@local.test`, up to DATA's reply.
    fn begin(&mut self) {
        self.expect("MAIL FROM:<from@far.test>", "250 2.1.0");
        self.expect("RCPT TO:<someone@local.test>", "250 2.1.5");
        self.expect("DATA", "354");
    }

    /// What is left to read. `Err`: the connection was reset.
    fn rest(mut self) -> Result<Vec<u8>, ErrorKind> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).map_err(|error| error.kind()).map(|_| rest)
    }
}
