//! TLS on loopback: what a client says over it reaches a backend over it, and where it cannot be had nothing is said.

use std::io::{BufReader, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use tests::peers::local::{address, connect};
use tests::peers::local_tls::{Scene, Speaker, TlsBackend, UNCHECKED, serve};
use tests::peers::log::PATIENCE;

fn all_of_the_mail_was_secured(heard: &[(bool, String)]) {
    assert!(heard.iter().any(|(secured, line)| *secured && line == "Subject: secret"), "{heard:?}");
    let in_clear = heard.iter().filter(|(secured, _)| !secured).map(|(_, line)| line.as_str());
    let told = in_clear.clone().find(|line| !["EHLO gateway.test", "STARTTLS", "QUIT"].contains(line));
    assert_eq!(told, None, "said in clear");
}

#[test]
fn starttls_through_to_a_backend_over_tls() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    scene.starttls().deliver();
    all_of_the_mail_was_secured(&backend.until_message());
}

#[test]
fn implicit_from_the_first_byte() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "tls = \"implicit\"");
    let mut client = scene.secure(scene.connect());
    assert!(client.line().starts_with("220 "));
    client.deliver();
    all_of_the_mail_was_secured(&backend.until_message());
}

#[test]
fn nothing_crosses_starttls() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    let mut client = scene.connect();
    assert!(client.line().starts_with("220 "));
    let reply = client.reply("STARTTLS\r\nMAIL FROM:<injected@client.test>\r\n");
    assert!(reply.starts_with("554 5.5.0 "), "{reply}");
    assert_eq!(client.line(), "", "the session has ended");
    // What comes behind it tells that nothing of it came before.
    scene.starttls().deliver();
    let heard = backend.until_message();
    assert!(heard.iter().all(|(_, line)| !line.contains("injected")), "{heard:?}");
}

#[test]
fn a_wrong_certificate_gets_nothing_of_a_client() {
    let backend = TlsBackend::start();
    let pin = "0f".repeat(32);
    let keys = format!("tls = \"required\"\ntls_verify = \"pin\"\ntls_pins = [\"{pin}\"]");
    let scene = Scene::new(backend.address, &keys, "");
    let mut client = scene.starttls();
    assert!(client.reply("EHLO client.test\r\n").starts_with("250 "));
    let reply = client.reply("MAIL FROM:<a@client.test>\r\n");
    assert!(reply.starts_with("451 4.7.5 "), "{reply}");
    assert!(client.reply("QUIT\r\n").starts_with("221 "));
    let heard: Vec<_> = backend.heard.try_iter().collect();
    assert!(heard.iter().any(|(_, line)| line == "STARTTLS"), "TLS was tried: {heard:?}");
    let of_client = heard.iter().find(|(secured, line)| *secured || line.contains("client.test"));
    assert_eq!(of_client, None);
}

#[test]
fn where_tls_is_not_demanded_mail_goes_on_without() {
    // It says yes to STARTTLS, and what comes then is no TLS.
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let backend = listener.local_addr().unwrap();
    let (sender, heard) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut clear = Speaker(BufReader::new(stream));
                clear.say("220 backend\r\n");
                if serve(&mut clear, false, &sender) {
                    // Behind the first octet of the handshake, or it would be told before TLS begins.
                    let _ = clear.0.read(&mut [0]);
                    clear.say("no TLS here\r\n");
                }
            });
        }
    });
    let backend = TlsBackend { address: backend, heard };
    let scene = Scene::new(backend.address, "tls = \"opportunistic\"", "");
    scene.starttls().deliver();
    let heard = backend.until_message();
    assert!(heard.iter().any(|(secured, line)| !secured && line == "Subject: secret"), "{heard:?}");
    assert!(heard.iter().any(|(_, line)| line == "STARTTLS"), "TLS was tried: {heard:?}");
    let status = scene.gateway.status();
    let problems = status["problems"].to_string();
    assert!(problems.contains("in clear text, for TLS with it fails"), "{problems}");
    assert_eq!(status["backends"][0]["healthy"], true);
}

#[test]
fn status_and_log_say_what_was_agreed_upon() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    let mut client = scene.starttls();
    assert!(client.reply("EHLO client.test\r\n").starts_with("250 "));
    assert!(client.reply("MAIL FROM:<a@client.test>\r\n").starts_with("250 "));
    let output = tests::peers::local::run(scene.gateway.folder(), &["sessions", "--socket", "control.sock", "--json"]);
    let sessions: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let session = &sessions["sessions"][0];
    assert_eq!(session["tls"]["version"], "TLS 1.3", "{session}");
    assert_eq!(session["tls"]["group"], "X25519MLKEM768", "{session}");
    assert_eq!(session["backend_tls"]["verified"], false, "{session}");
    assert!(client.reply("RSET\r\n").starts_with("250 "));
    client.deliver();
    scene.gateway.log().wait_for(&[" tls=\"TLS 1.3", "backend_tls=\"TLS 1.3", "not verified"]);
    // One that gives up, one that speaks in clear, and one that begins with a handshake.
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 ") && clear.reply("STARTTLS\r\n").starts_with("220 "));
    drop(clear);
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 ") && clear.reply("STARTTLS\r\n").starts_with("220 "));
    clear.reply("EHLO client.test\r\n");
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 "));
    let reply = clear.reply("\u{16}\u{3}\u{1}\u{0}\u{c8}");
    assert!(reply.starts_with("554 5.5.0 "), "{reply}");
    // And one that never asks for it.
    let mut clear = scene.connect();
    assert!(clear.line().starts_with("220 ") && clear.reply("QUIT\r\n").starts_with("221 "));
    // It is counted at its end, before its connection closes.
    assert_eq!(clear.line(), "");
    let status = scene.gateway.status();
    let tls = &status["tls"];
    assert_eq!((&tls["messages_total"], &tls["sessions_total"]["TLS 1.3"]), (&1.into(), &1.into()), "{tls}");
    assert_eq!((&tls["clear_messages_total"], &tls["clear_sessions_total"]), (&0.into(), &1.into()), "{tls}");
    for cause in ["given-up", "clear-text", "hello-in-clear"] {
        assert_eq!(tls["faults_total"][cause], 1, "{cause}: {tls}");
    }
    assert_eq!(status["backends"][0]["tls"]["agreed"]["version"], "TLS 1.3");
    assert!(status["problems"].to_string().contains("is not verified"), "{status}");
}

#[test]
fn hosts_whose_tls_is_broken_are_not_told_of_it() {
    let backend = TlsBackend::start();
    let scene = Scene::with(backend.address, UNCHECKED, "", "not_offered_to = [\"127.9.9.0/24\"]\n");
    let stream = connect(Ipv4Addr::new(127, 9, 9, 7), scene.gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut clear = Speaker(BufReader::new(stream));
    assert!(clear.line().starts_with("220 "));
    clear.say("EHLO client.test\r\n");
    let mut offers = vec![clear.line()];
    while offers.last().is_some_and(|line| line.starts_with("250-")) {
        offers.push(clear.line());
    }
    assert!(offers.iter().all(|line| !line.contains("STARTTLS")), "{offers:?}");
    let reply = clear.reply("STARTTLS\r\n");
    assert!(reply.starts_with("502 5.5.1 "), "{reply}");
    // What it says in clear goes on over TLS, and everybody else has TLS as before.
    clear.deliver();
    all_of_the_mail_was_secured(&backend.until_message());
    scene.starttls().deliver();
}

/// Connections that were told to begin TLS, and do not.
fn half_open(scene: &Scene, sources: u8, each: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for source in 1..=sources {
        for _ in 0..each {
            let stream = connect(Ipv4Addr::new(127, 9, 9, source), scene.gateway.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut clear = Speaker(BufReader::new(stream));
            assert!(clear.line().starts_with("220 "));
            assert!(clear.reply("STARTTLS\r\n").starts_with("220 "));
            open.push(clear.0.into_inner());
        }
    }
    open
}

#[test]
fn half_open_handshakes_hold_up_nobody() {
    let backend = TlsBackend::start();
    let scene = Scene::new(backend.address, UNCHECKED, "");
    let open = half_open(&scene, 40, 10);
    let begun = std::time::Instant::now();
    scene.starttls().deliver();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    all_of_the_mail_was_secured(&backend.until_message());
    assert_eq!(scene.gateway.status()["sessions"]["active"], open.len());
    assert_eq!(scene.gateway.status()["xdp"]["bans"], 0, "silence speaks against nobody");
}

#[test]
fn who_begins_too_many_handshakes_is_told_to_come_again() {
    let backend = TlsBackend::start();
    let scene = Scene::with(backend.address, UNCHECKED, "", "[limits]\nhandshakes_per_client = 5\n");
    drop(half_open(&scene, 1, 5));
    // The answer to STARTTLS may be here before the handshake is counted; the session's end is not.
    scene.gateway.log().wait_for_count(&[" session=", " end="], 5);
    let mut clear = Speaker(BufReader::new(connect(Ipv4Addr::new(127, 9, 9, 1), scene.gateway.address).unwrap()));
    assert!(clear.line().starts_with("220 "));
    let reply = clear.reply("STARTTLS\r\n");
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    assert_eq!(clear.line(), "", "the session has ended");
    scene.starttls().deliver();
    assert_eq!(scene.gateway.status()["tls"]["faults_total"]["too-many"], 1);
}
