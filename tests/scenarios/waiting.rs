//! Who has connected, and was not accepted yet when a listener closes: he is told something, and not reset.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::json;
use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::local::{LocalGateway, LocalSink, address, configuration, connect};
use tests::peers::log::PATIENCE;

/// More than a worker accepts in one go.
const CLIENTS: usize = 600;

struct Scene {
    _sink: LocalSink,
    gateway: LocalGateway,
    /// Names the first listener only.
    config: String,
    second: SocketAddr,
}

fn scene(sessions_per_client: usize) -> Scene {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let [front, second]: [SocketAddr; 2] = [(address(), 2525).into(), (address(), 2525).into()];
    let limits = format!("[limits]\nsessions_per_client = {sessions_per_client}\n");
    let config = configuration(front, "", sink.address, "xclient", &limits);
    let both = config.replace("[[backend]]", &format!("[[listener]]\naddress = \"{second}\"\n[[backend]]"));
    Scene { _sink: sink, gateway: LocalGateway::start(front, &both), config, second }
}

fn signal(gateway: &LocalGateway, signals: &[&str]) {
    for signal in signals {
        let status = Command::new("kill").arg(signal).arg(gateway.pid().to_string()).status().unwrap();
        assert!(status.success());
    }
}

/// Clients that the kernel has let in, of a gateway that cannot accept them.
fn waiting(at: SocketAddr) -> Vec<TcpStream> {
    let from = address();
    (0..CLIENTS).map(|_| connect(from, at).unwrap()).collect()
}

/// From one address: others need those that are left.
fn until_nobody_is_let_in(at: SocketAddr) {
    let from = address();
    while connect(from, at).is_ok() {}
}

fn each_is_told_something(clients: &[TcpStream]) {
    for client in clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut line = String::new();
        let read = BufReader::new(client).read_line(&mut line);
        assert!(read.is_ok() && (line.starts_with("220 ") || line.starts_with("421 ")), "{read:?} {line}");
    }
}

#[test]
fn at_a_listener_that_a_reload_takes_away() {
    a_reload_takes_a_listener_away(&scene(5000));
}

#[test]
fn who_is_refused_there_too() {
    a_reload_takes_a_listener_away(&scene(5));
}

fn a_reload_takes_a_listener_away(scene: &Scene) {
    let Scene { gateway, config, second, .. } = scene;
    fs::write(gateway.folder().join("gateway.toml"), config).unwrap();
    signal(gateway, &["-STOP"]);
    let clients = waiting(*second);
    signal(gateway, &["-HUP", "-CONT"]);
    each_is_told_something(&clients);
    gateway.log().wait_for(&[" reloaded digest="]);
    until_nobody_is_let_in(*second);
}

#[test]
fn at_a_gateway_that_is_stopped() {
    let Scene { gateway, second, .. } = scene(5000);
    signal(&gateway, &["-STOP"]);
    let clients = waiting(second);
    signal(&gateway, &["-TERM", "-CONT"]);
    each_is_told_something(&clients);
    gateway.log().wait_for(&["stopped"]);
}

/// The process before serves who waits there; nobody else could.
#[test]
fn at_a_listener_that_the_successor_has_no_use_for() {
    let Scene { gateway, second, .. } = scene(5000);
    let mut stream = UnixStream::connect(gateway.control_socket()).unwrap();
    let mut heard = BufReader::new(stream.try_clone().unwrap());
    let mut hear = || {
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        line
    };
    let mut say = |word| writeln!(stream, "{word}").unwrap();
    say(json!({ "verb": "take-over", "version": 2 }));
    assert!(hear().contains(&second.to_string()));
    say(json!({ "word": "ready" }));
    hear();
    say(json!({ "word": "taken" }));
    assert!(hear().contains("go"));
    signal(&gateway, &["-STOP"]);
    let clients = waiting(second);
    say(json!({ "word": "serving", "control": false, "kernel": true, "left": [1] }));
    signal(&gateway, &["-CONT"]);
    each_is_told_something(&clients);
    gateway.log().wait_for(&["another process serves"]);
    until_nobody_is_let_in(second);
}
