//! What the gateway says of itself, and that saying it never stops mail.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use smtp_gateway::sink::{Options, SinkIdentity};
use tests::peers::client::Client;
use tests::peers::gateway::program;
use tests::peers::local::{LocalSink, address, configuration, connect};

/// A program that is killed when the test is over.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // If it cannot be killed it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_mail_nor_signals() {
    let sink = LocalSink::start(Options { identity: SinkIdentity::Xclient, ..Options::default() });
    let front = (address(), 2525).into();
    let folder = tempfile::tempdir().unwrap();
    let log = "[log]\nlevel = \"trace\"\n";
    std::fs::write(folder.path().join("gateway.toml"), configuration(front, "", sink.address, "xclient", log)).unwrap();
    let mut command = Command::new(program());
    command.args(["run", "-c", "gateway.toml"]).current_dir(folder.path()).stdin(Stdio::null());
    // Both ends are held open, and nothing is ever read.
    let mut gateway = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    let from = address();
    while connect(from, front).is_err() {
        assert!(Instant::now() < deadline, "the gateway does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A pipe takes 64 KiB, and a session's lines are some hundred bytes.
    for _ in 0..1000 {
        let mut client = Client::over(connect(from, front).unwrap());
        client.expect(2);
        client.must("EHLO client.test");
        assert_eq!(client.command("XCLIENT ADDR=192.0.2.1").code / 100, 5);
        client.quit();
    }
    let mut client = Client::over(connect(from, front).unwrap());
    client.expect(2);
    let reply = client.mail("sender@client.test", "user@example.com", b"Subject: heard\r\n\r\nyes\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    sink.message();
    let pid = gateway.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    while gateway.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the gateway is deaf to SIGTERM");
        std::thread::sleep(Duration::from_millis(20));
    }
}
