//! What sessions hold that nobody finishes, and whether it is given back.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    assert!(during <= before + SESSION_KIB_MAX * SESSIONS as u64, "{before} KiB before, {during} during");
    // When the burst has been over for ten seconds, what it took goes back to the system.
    let until = Instant::now() + Duration::from_secs(40);
    let given_back = |after| after <= before + (during - before) / 2;
    while !given_back(memory_kib(&gateway)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
    }
    let after = memory_kib(&gateway);
    println!("{SESSIONS} sessions: {before} KiB before, {during} during, {after} after");
    assert!(given_back(after), "{before} KiB before, {during} during, {after} after");
}

/// A mail server that takes messages up to their first octets, and reads no more of them: the gateway holds what clients have
/// sent, until it is as much as it may be. Then a message that begins is refused for now, and all of it is given back.
#[test]
fn what_a_stalled_mail_server_makes_sessions_hold_is_bounded_and_given_back() {
    const HOLDERS: usize = 160;
    let backend = TcpListener::bind((address(), 0)).unwrap();
    // What the kernel takes for it is little, so that the rest is the gateway's.
    socket2::SockRef::from(&backend).set_recv_buffer_size(4096).unwrap();
    let backend_address = backend.local_addr().unwrap();
    let stalled = Arc::new(Mutex::new(Vec::new()));
    let stalling = stalled.clone();
    std::thread::spawn(move || stalls(&backend, &stalling));
    let front = (address(), 2525).into();
    let limits = "[limits]\nsessions_per_client = 5000\nbuffered = \"1MiB\"\n";
    let gateway = LocalGateway::start(front, &configuration(front, "", backend_address, "none", limits));
    let from = address();
    let begins = || {
        let stream = gateway.connect_from(from);
        let mut client = Client::over(stream.try_clone().unwrap());
        client.expect(2);
        for command in ["EHLO client.test", "MAIL FROM:<a@client.test>", "RCPT TO:<b@example.com>"] {
            client.must(command);
        }
        (stream, client.command("DATA").code)
    };
    assert_eq!(begins().1, 354);
    let before = memory_kib(&gateway);
    let body = [b"\r\n".as_slice(), &[b'x'; 16 << 20]].concat();
    let mut holders = Vec::new();
    for _ in 0..HOLDERS {
        let (stream, code) = begins();
        if code != 354 {
            break;
        }
        // As much as goes in before everything stands.
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = (&stream).write_all(&body);
        holders.push(stream);
    }
    let during = memory_kib(&gateway);
    assert!(holders.len() < HOLDERS, "nothing bounds what {HOLDERS} sessions hold");
    assert_eq!(begins().1, 452);
    // Whoever has begun goes on: it is closed by nobody.
    assert!(holders.iter().all(|stream| stream.take_error().unwrap().is_none()));
    let count = holders.len();
    drop(holders);
    stalled.lock().unwrap().clear();
    let until = Instant::now() + Duration::from_secs(20);
    while begins().1 != 354 {
        assert!(Instant::now() < until, "what ended sessions held is counted on");
    }
    println!("{count} sessions: {before} KiB before, {during} during, {} after", memory_kib(&gateway));
}

/// A mail server that says yes to everything, and behind DATA reads nothing: it puts the connection aside.
fn stalls(listener: &TcpListener, stalled: &Mutex<Vec<TcpStream>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let serve = || -> io::Result<bool> {
            (&stream).write_all(b"220 backend ESMTP\r\n")?;
            for line in BufReader::with_capacity(1, &stream).lines() {
                let line = line?;
                let reply: &[u8] = match line.split(' ').next() {
                    Some("DATA") => b"354 go on\r\n",
                    Some("QUIT") => b"221 bye\r\n",
                    _ => b"250 Ok\r\n",
                };
                (&stream).write_all(reply)?;
                if line == "DATA" {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if let Ok(true) = serve() {
            stalled.lock().unwrap().push(stream);
        }
    }
}
