//! What is left of a password in the gateway's memory and log, once its user is gone: nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::peers::local::LocalGateway;
use tests::peers::local_tls::{Scene, Speaker, TlsBackend, UNCHECKED, take};
use tests::peers::log::PATIENCE;
use tests::peers::scripted::{self, Answer, Dialog};

/// In no program, and no part of it twice.
const PASSWORD: &str = "q7Vw-Zk2x_Jt9RmB4hLs.Yc8NfDg3Pu5";
/// With a NUL on each side of it, what stands before the password in PLAIN is a whole number of base64's groups.
const USER: &str = "u@example.com";
/// Octets of a secret that are no chance.
const PIECE: usize = 12;

/// Whether any piece of these stands in memory that the process can write to.
fn remembers(process: u32, texts: &[&str]) -> bool {
    let pieces: Vec<&[u8]> = texts.iter().flat_map(|text| text.as_bytes().windows(PIECE)).collect();
    let mut begins = vec![false; 1 << 16];
    let place = |bytes: &[u8]| usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
    for piece in &pieces {
        begins[place(piece)] = true;
    }
    let memory = File::open(format!("/proc/{process}/mem")).expect("its memory, which root may read");
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("its memory, which root may read");
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))).any(|line| {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("an address"));
        let mut bytes = vec![0; usize::try_from(to - from).expect("a size")];
        // What was unmapped meanwhile is not there to be read.
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        bytes[..read].windows(PIECE).any(|window| begins[place(window)] && pieces.contains(&window))
    })
}

/// How a session says its password: each line is a command or a response, and what is answered to it.
fn ways() -> [Vec<(String, &'static str)>; 4] {
    let [whole, name, password] = [&*format!("\0{USER}\0{PASSWORD}"), USER, PASSWORD].map(|text| STANDARD.encode(text));
    [
        vec![(format!("AUTH PLAIN {whole}"), "235")],
        vec![("AUTH PLAIN".to_owned(), "334"), (whole, "235")],
        vec![("AUTH LOGIN".to_owned(), "334"), (name.clone(), "334"), (password.clone(), "235")],
        vec![(format!("AUTH LOGIN {name}"), "334"), (password, "235")],
    ]
}

/// A user logs in so, in one packet a line or in many.
fn log_in<S: Read + Write>(client: &mut Speaker<S>, way: &[(String, &str)], is_slow: bool) {
    for (line, code) in way {
        let line = format!("{line}\r\n");
        let (first, last) = line.split_at(if is_slow { line.len() - 1 } else { 0 });
        for piece in first.as_bytes().chunks(7) {
            client.say(std::str::from_utf8(piece).expect("ASCII"));
        }
        let reply = client.reply(last);
        assert!(reply.starts_with(code), "{line}: {reply}");
    }
}

/// Users log in each way, one breaks off, and nothing is left. `begin` gives sessions behind EHLO.
fn nothing_is_left<S: Read + Write>(gateway: &LocalGateway, begin: impl Fn() -> Speaker<S>) {
    let encoded = STANDARD.encode(PASSWORD);
    let secrets = [PASSWORD, encoded.trim_end_matches('=')];
    let process = gateway.pid();
    assert!(remembers(process, &["gateway.test"]), "its own name is not found in its memory");
    for is_slow in [false, true] {
        for way in ways() {
            let mut client = begin();
            log_in(&mut client, &way, is_slow);
            for (command, code) in [("MAIL FROM:<u@example.com>\r\n", "250"), ("QUIT\r\n", "221")] {
                let reply = client.reply(command);
                assert!(reply.starts_with(code), "{command}: {reply}");
            }
        }
    }
    let [(command, _)] = &ways()[0][..] else { panic!("the way of one line") };
    // One is gone before he is heard, one says what is no AUTH, and one what is too long for one.
    for rest in ["\r\nAUTH PLAIN", "\0\r\n", &"x".repeat(13_000)] {
        begin().say(&format!("{command}{rest}{}", &command["AUTH PLAIN".len()..]));
    }
    // While a line of an exchange is not at its end, it is there to be found.
    let mut client = begin();
    client.say(command);
    until(|| remembers(process, &secrets), "what a user has begun to say is not found in memory");
    drop(client);
    until(|| !remembers(process, &secrets), "a password is left in memory");
    let log = gateway.log().text();
    assert!(log.contains("outcome=\"ok\""), "{log}");
    assert!(secrets.iter().all(|secret| !log.contains(&secret[..PIECE])), "a password in the log:\n{log}");
}

fn until(is_so: impl Fn() -> bool, otherwise: &str) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{otherwise}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Another process's memory is root's to read.
fn may_look() -> bool {
    tests::peers::available("passwords in memory", &[])
}

const MORE: &str = "[log]\nlevel = \"trace\"\n[submission]\nclear_text_networks = [\"127.0.0.0/8\"]\n";

/// Behind EHLO, in clear: what came by a client's TLS, rustls has copied, and gives back as it is.
fn begin(scene: &Scene) -> Speaker<TcpStream> {
    let mut client = scene.connect();
    assert!(client.line().starts_with("220 "));
    assert_eq!(client.reply("EHLO client.test\r\n"), "250 STARTTLS");
    client
}

#[test]
fn nothing_is_left_of_a_password_told_over_tls() {
    if !may_look() {
        return;
    }
    let backend = TlsBackend::offering("AUTH PLAIN LOGIN", take);
    let scene = Scene::with(backend.address, UNCHECKED, "service = \"submission\"", MORE);
    nothing_is_left(&scene.gateway, || begin(&scene));
}

#[test]
fn nothing_is_left_of_a_password_told_in_clear() {
    if !may_look() {
        return;
    }
    let backend = scripted::start(|dialog: &mut Dialog, command| {
        let responses = match command.split(' ').collect::<Vec<_>>()[..] {
            ["EHLO", _] => {
                dialog.say("250-backend\r\n250 AUTH PLAIN LOGIN\r\n");
                return Answer::Given;
            }
            ["AUTH", "LOGIN"] => 2,
            ["AUTH", "PLAIN"] | ["AUTH", "LOGIN", _] => 1,
            ["AUTH", ..] => 0,
            _ => return Answer::Usual,
        };
        for _ in 0..responses {
            dialog.say("334 \r\n");
            dialog.line();
        }
        dialog.say("235 2.7.0 Ok\r\n");
        Answer::Given
    });
    let scene = Scene::with(backend, "", "service = \"submission\"", MORE);
    nothing_is_left(&scene.gateway, || begin(&scene));
}
