//! What both demos play on: a sink, a gateway before it, one client, and what is shown of them.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::{self, Config, HostPort};
use crate::control::{ProofState, Status, render};
use crate::service::{Bound, Gateway};
use crate::sink::{self, By, Event, Observer, Options, Sink, SinkIdentity};

use super::super::failure::{BAD_CONFIG, Failure};

/// What `cargo xtask run` starts, but for the ports.
const CONFIG: &str = include_str!("../../../../config/demo.toml");

/// Loopback has many addresses; this one is neither the gateway's nor the sink's.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// An address that the sink lets relay, by which the proof sees that it believes what it is told.
pub(super) const INSIDER: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

/// How long the first proof may take.
const PROOF_PATIENCE: Duration = Duration::from_secs(30);

/// What the client says, and the first digit of the answer it must get.
pub(super) const DIALOG: [(&str, char); 7] = [
    ("EHLO client.example", '2'),
    ("MAIL FROM:<alice@client.example>", '2'),
    ("RCPT TO:<bob@example.com>", '2'),
    ("RCPT TO:<eve@elsewhere.example>", '5'),
    ("DATA", '3'),
    (
        "From: <alice@client.example>\r\nTo: <bob@example.com>\r\nSubject: demo\r\n\r\nHello through the gateway.\r\n.",
        '2',
    ),
    ("QUIT", '2'),
];

/// A directory of the demo's own; gone with it.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Nobody else's: one that is there already is not used.
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("smtp-gateway-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It holds at most a socket of ours, and lies where temporary files do.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A sink that lets clients in `trust` relay, and what happens there.
pub(super) fn start_sink(identity: SinkIdentity, trust: IpNet) -> Result<(Sink, Receiver<Event>), Failure> {
    let (observer, events) = Observer::channel();
    let sink = sink::start(Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        identity,
        trust: vec![trust],
        local_domains: vec!["example.com".into()],
        quiet: true,
        observer: Some(observer),
        ..Options::default()
    });
    Ok((sink.map_err(Failure::new)?, events))
}

/// A gateway, and where it listens.
pub(super) async fn start(config: Config) -> Result<(SocketAddr, Gateway), Failure> {
    let bound = Bound::new(config, None).map_err(Failure::new)?;
    let address = bound.addresses()[0];
    Ok((address, bound.start().await.map_err(Failure::new)?))
}

/// A configuration for this sink, and a directory that lives as long as it is used.
pub(super) fn configuration(sink: &Sink) -> Result<(Config, Directory), Failure> {
    let directory = Directory::new().map_err(Failure::new)?;
    let mut config = config::parse(CONFIG, "demo.toml")
        .map_err(|faults| Failure { code: BAD_CONFIG, message: faults.iter().map(ToString::to_string).collect() })?;
    config.listeners[0].address.set_port(0);
    config.backends[0].address = HostPort::Address(sink.address());
    config.control.socket = directory.0.join("control.sock");
    config.proof.pause = Duration::ZERO;
    config.proof.trusted = vec![INSIDER.into()];
    Ok((config, directory))
}

/// The status once the first proof has come to its end.
pub(super) async fn proven(gateway: &Gateway) -> Status {
    let begun = Instant::now();
    loop {
        let status = gateway.status();
        let is_over = status.backends.iter().all(|backend| backend.proof.state != ProofState::NeverRun);
        if is_over || begun.elapsed() > PROOF_PATIENCE {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Shows what the sink saw; whom it believed to have sent the last message.
pub(super) fn saw(events: &Receiver<Event>) -> Option<IpAddr> {
    let mut believed = None;
    for event in events.try_iter() {
        if let Event::Message(message) = &event {
            believed = message.client.believed;
        }
        let by_itself = matches!(&event, Event::Client(client) if client.by == By::Connection);
        println!("  {event}{}", if by_itself { ": the gateway's own health check" } else { "" });
    }
    believed
}

/// The page that an administrator sees.
pub(super) fn status_page(status: &Status) {
    println!("\nWhat `smtp-gateway status` shows:\n");
    for line in render(status, false).lines() {
        println!("  {line}");
    }
}

/// Sends what the client says, and shows both sides.
pub(super) async fn converse(gateway: SocketAddr, dialog: &[(&str, char)]) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((CLIENT, 0).into())?;
    let mut stream = BufReader::new(socket.connect(gateway).await?);
    reply(&mut stream, '2').await?;
    for &(said, expected) in dialog {
        for line in said.split("\r\n") {
            println!("  C: {line}");
        }
        stream.write_all(said.as_bytes()).await?;
        stream.write_all(b"\r\n").await?;
        reply(&mut stream, expected).await?;
    }
    Ok(())
}

/// Reads a reply that must begin with this digit.
async fn reply(stream: &mut BufReader<TcpStream>, expected: char) -> io::Result<()> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        println!("  S: {}", line.trim_end());
        if line.as_bytes().get(3) != Some(&b'-') {
            let told = format!("the gateway answered `{}`, not {expected}xx", line.trim_end());
            return if line.starts_with(expected) { Ok(()) } else { Err(io::Error::other(told)) };
        }
    }
}
