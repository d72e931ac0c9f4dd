//! `demo`: gateway and sink on loopback ports of their own, and one client that shows what each of them sees.

mod confused;

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::{self, Config, HostPort};
use crate::control::{ProofState, Status, render};
use crate::service::{Bound, Gateway};
use crate::sink::{self, By, Event, Observer, Options, Sink, SinkIdentity};

use super::{BAD_CONFIG, Failure};

/// What `cargo xtask run` starts, but for the ports.
const CONFIG: &str = include_str!("../../../config/demo.toml");

/// Loopback has many addresses; this one is neither the gateway's nor the sink's.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// An address that the sink lets relay, by which the proof sees that it believes what it is told.
const INSIDER: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

/// How long the first proof may take.
const PROOF_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Let the sink trust the gateway's address: the relay proof must catch it, and the exit code is 1
    #[arg(long)]
    confused: bool,
}

/// What the client says, and the first digit of the answer it must get.
const DIALOG: [(&str, char); 7] = [
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
struct Directory(PathBuf);

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

pub(super) fn demo(arguments: &DemoArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    if arguments.confused { runtime.block_on(confused::show()) } else { runtime.block_on(show()) }
}

/// A configuration for this sink, and a directory that lives as long as it is used.
fn configuration(sink: &Sink) -> Result<(Config, Directory), Failure> {
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

async fn show() -> Result<(), Failure> {
    let (observer, events) = Observer::channel();
    let sink = sink::start(Options {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        identity: SinkIdentity::Xclient,
        trust: vec![IpAddr::from(INSIDER).into()],
        local_domains: vec!["example.com".into()],
        quiet: true,
        observer: Some(observer),
        ..Options::default()
    });
    let sink = sink.map_err(Failure::new)?;
    let (config, _directory) = configuration(&sink)?;
    let bound = Bound::new(config).map_err(Failure::new)?;
    let address = bound.addresses()[0];
    let gateway = bound.start().await.map_err(Failure::new)?;
    println!("A gateway listens on {address}; behind it a mail server, the sink, on {}.", sink.address());
    proven(&gateway).await;
    // What the sink heard so far was the proof.
    events.try_iter().for_each(drop);
    println!("A client at {CLIENT} sends to the gateway:\n");
    converse(address, &DIALOG).await.map_err(Failure::new)?;

    println!("\nWhat the mail server saw:\n");
    let believed = saw(&events);
    status_page(&gateway.status());
    gateway.drain(std::future::ready(())).await;
    if believed == Some(CLIENT.into()) {
        println!("\nThe mail server knows its client: {CLIENT}, not the gateway.");
        Ok(())
    } else {
        Err(Failure::new(format_args!("the mail server believed its client to be {believed:?}, not {CLIENT}")))
    }
}

/// The status once the first proof has come to its end.
async fn proven(gateway: &Gateway) -> Status {
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
fn saw(events: &Receiver<Event>) -> Option<IpAddr> {
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

fn status_page(status: &Status) {
    println!("\nWhat `smtp-gateway status` shows:\n");
    for line in render(status, false).lines() {
        println!("  {line}");
    }
}

async fn converse(gateway: SocketAddr, dialog: &[(&str, char)]) -> io::Result<()> {
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
