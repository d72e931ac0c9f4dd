//! nmap's script `smtp-open-relay`: sixteen tricks, and a judge that knows nothing of this project.

use std::net::SocketAddr;

use super::net::Host;
use super::stage::{Stage, said};

/// How many of the sixteen a mail server relays, as seen from this host.
pub fn relayed(from: &Host, server: SocketAddr) -> usize {
    let mut stage = Stage::new("nmap");
    // What an installation would have linked.
    stage.prepare("for f in /usr/lib/*/blas; do export LD_LIBRARY_PATH=$f; done");
    let (port, address) = (server.port().to_string(), server.ip().to_string());
    let arguments = "--script-args=smtp-open-relay.domain=client.test";
    let command =
        ["nmap", "-n", "-Pn", "--unprivileged", "-p", &port, "--script", "+smtp-open-relay", arguments, &address];
    let output = stage.run(from, &command);
    let text = said(&output);
    let found = text.lines().find_map(|line| {
        let (_, counted) = line.split_once("Server is an open relay (")?;
        counted.split_once('/').and_then(|(count, _)| count.parse().ok())
    });
    match found {
        Some(count) => count,
        None if text.contains("Server doesn't seem to be an open relay, all tests failed") => 0,
        None => panic!("nmap cannot say: {text}"),
    }
}
