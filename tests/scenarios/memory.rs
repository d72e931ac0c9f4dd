//! What sessions hold that nobody finishes.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use smtp_gateway::sink::Options;
use tests::peers::client::Client;
use tests::peers::local::{LocalGateway, LocalSink, address, configuration};

const SESSIONS: usize = 400;
/// Beyond what it has anyway, a session holds a line and two fields of a header section, however long that grows.
const SESSION_KIB_MAX: u64 = 24;

fn memory_kib(gateway: &LocalGateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Each of many sends 200 KiB of header, in long lines and fields that the log would show, and never ends it.
#[test]
fn headers_that_nobody_finishes_cost_little() {
    let sink = LocalSink::start(Options::default());
    let front = (address(), 2525).into();
    let limits = "[limits]\nsessions_per_client = 5000\n";
    let gateway = LocalGateway::start(front, &configuration(front, "", sink.address, "none", limits));
    let mut first = gateway.client(address());
    assert_eq!(first.mail("a@client.test", "b@example.com", b"Subject: x\r\n\r\nx\r\n").code, 250);
    first.quit();
    let before = memory_kib(&gateway);
    let header = [
        b"Message-ID: <".as_slice(),
        &[b'x'; 30_000],
        b"\r\nFrom: ",
        &b"somebody@client.test,\r\n ".repeat(4000),
        b"\r\nX-Long: ",
        &[b'y'; 70_000],
    ]
    .concat();
    let from = address();
    let sessions: Vec<Client> = (0..SESSIONS)
        .map(|_| {
            let stream = gateway.connect_from(from);
            let mut client = Client::over(stream.try_clone().unwrap());
            client.expect(2);
            client.envelope("a@client.test", "b@example.com", "");
            (&stream).write_all(&header).unwrap();
            client
        })
        .collect();
    // Half a second after the last octet was sent, it has been read: nothing grows from there on.
    std::thread::sleep(Duration::from_millis(500));
    let during = memory_kib(&gateway);
    drop(sessions);
    println!("{SESSIONS} sessions: {before} KiB before, {during} during");
    assert!(during <= before + SESSION_KIB_MAX * SESSIONS as u64, "{before} KiB before, {during} during");
}
