//! Real mail servers and clients around a real gateway, each in a network of its own.
//!
//! A scenario builds a [`net::Trio`] (client, gateway and backend hosts joined by cables), starts a backend on one, the
//! gateway on the next, and speaks from the third. Because the hosts are network namespaces, every server listens on
//! port 25, all addresses are documentation addresses, and nothing but the gateway can join client to backend. Because
//! each server sees its own root ([`stage`]), unpacked packages run as if they were installed.
//!
//! Must not know: the gateway's insides. It is a program with a configuration file, a log and port 25.
//!
//! Nothing here sleeps: readiness is a line in a log or a connection that is accepted, and what a test waits for is
//! waited for with a limit.

pub mod aiosmtpd;
pub mod arrival;
pub mod client;
pub mod delay;
pub mod dns;
pub mod dovecot;
pub mod exim;
pub mod forwarder;
pub mod gateway;
pub mod haraka;
pub mod local;
pub mod local_tls;
pub mod log;
pub mod machine;
pub mod net;
pub mod nmap;
pub mod opensmtpd;
pub mod postfix;
pub mod queues;
pub mod scripted;
pub mod selftest;
pub mod sendmail;
pub mod setting;
pub mod stage;
pub mod submission;
pub mod threads;
pub mod tls;
pub mod tun;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use log::Log;

/// The domain every backend here takes mail for.
pub const LOCAL_DOMAIN: &str = "local.test";

/// A mail server that runs until it is dropped.
pub trait Backend {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// What it says.
    fn log(&self) -> &Log;
}

/// Whether a scenario can run here: as root, and with these peers in `target/peers`.
///
/// If not, the scenario is to return at once. That is said where cargo does not capture it, and with
/// `SMTP_GATEWAY_TESTS=all` it is a failure.
pub fn available(scenario: &str, peers: &[&str]) -> bool {
    let missing: Vec<&str> = peers.iter().copied().filter(|peer| !folder(peer).is_dir()).collect();
    let why = if !rustix::process::geteuid().is_root() {
        "network namespaces need root".to_owned()
    } else if missing.is_empty() {
        return true;
    } else {
        format!("not in target/peers: {} (run `cargo xtask peers`)", missing.join(", "))
    };
    let all = std::env::var_os("SMTP_GATEWAY_TESTS").is_some_and(|value| value == "all");
    assert!(!all, "{scenario} cannot run, and SMTP_GATEWAY_TESTS=all: {why}");
    // Nothing to be done if standard error is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {scenario}: {why}");
    false
}

/// Runs `cargo xtask` to its end.
pub fn xtask(arguments: &[&str]) -> Output {
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command.args(["run", "--quiet", "--package", "xtask", "--"]).args(arguments);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().expect("cargo")
}

/// Where `cargo xtask peers` put a peer.
pub fn folder(peer: &str) -> PathBuf {
    target().join("peers").join(peer)
}

/// The folder cargo builds to: this program is in its `PROFILE/deps`.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("this program's own path");
    program.ancestors().nth(3).map(Path::to_path_buf).expect("a cargo target folder")
}
