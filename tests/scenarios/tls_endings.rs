//! TLS that ends inside a message, or before its verdict, in every way: there is no message then, and nobody waits.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use socket2::SockRef;
use tests::peers::local_tls::{Scene, TlsBackend, TlsSpeaker, UNCHECKED, take, until_closed};

/// When an end is known, on a busy machine.
const ENDED: Duration = Duration::from_secs(12);

/// A client's TLS, and what it does inside a message.
type Ending = fn(&mut rustls::StreamOwned<ClientConnection, TcpStream>);

const ENDINGS: [(&str, Ending); 5] = [
    ("no close_notify", |tls| drop(tls.sock.shutdown(Shutdown::Write))),
    ("close_notify", |tls| {
        tls.conn.send_close_notify();
        tls.flush().unwrap();
    }),
    // What would end the message, if anybody read it.
    ("in clear", |tls| tls.sock.write_all(b"\r\n.\r\nQUIT\r\n").unwrap()),
    ("close_notify and more in clear", |tls| {
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        let _ = tls.sock.write_all(b"\r\n.\r\nQUIT\r\n");
    }),
    ("a reset", |tls| SockRef::from(&tls.sock).set_linger(Some(Duration::ZERO)).unwrap()),
];

/// Where it happens, behind DATA and in a chunk: the last of these is but one octet away from an end of data.
const INSIDE: [&str; 5] = [
    "DATA\r\n",
    "DATA\r\nSubject: lost\r\n\r\nText",
    "DATA\r\nSubject: lost\r\n\r\nText.\r\n.\r",
    "BDAT 40 LAST\r\nSubject: lost\r\n",
    "BDAT 15\r\nSubject: lost\r\n",
];

#[test]
fn a_client_whose_tls_ends_inside_a_message_has_sent_none() {
    let backend = TlsBackend::offering("CHUNKING", take);
    let scene = Scene::new(backend.address, UNCHECKED, "");
    for (what, ending) in ENDINGS {
        for inside in INSIDE {
            let mut client = scene.starttls();
            for command in ["EHLO client.test\r\n", "MAIL FROM:<a@client.test>\r\n", "RCPT TO:<b@example.com>\r\n"] {
                assert!(client.reply(command).starts_with("250"), "{command}");
            }
            let (command, text) = inside.split_once('\n').unwrap();
            if command.starts_with("DATA") {
                assert!(client.reply("DATA\r\n").starts_with("354"));
                client.say(text);
            } else {
                client.say(inside);
            }
            let mut tls = client.0.into_inner();
            ending(&mut tls);
            if what == "a reset" {
                continue;
            }
            let begun = Instant::now();
            let rest = until_closed(&mut tls.sock);
            assert!(begun.elapsed() < ENDED, "{what}: {inside}");
            assert!(rest.first().is_none_or(|first| [20, 21, 23].contains(first)), "{what}: {rest:?}");
        }
    }
    scene.starttls().deliver();
    let heard = backend.until_message();
    let ends = heard.iter().filter(|(_, line)| line == "." || line.contains(" LAST")).count();
    assert_eq!(ends, 1, "{heard:?}");
    let status = scene.gateway.status();
    assert_eq!(status["messages"]["accepted_total"], 1, "{}", status["messages"]);
    assert_eq!(status["xdp"]["bans"], 0);
}

/// What a mail server does instead of a verdict: none of it is one.
const VERDICTS: [fn(&mut TlsSpeaker); 4] = [
    |tls| {
        tls.say("250 2.0.0 tak");
        let _ = tls.0.get_mut().sock.shutdown(Shutdown::Both);
    },
    |tls| {
        tls.say("250-2.0.0 taken\r\n");
        tls.0.get_mut().conn.send_close_notify();
        let _ = tls.0.get_mut().flush();
        let _ = tls.0.get_mut().sock.shutdown(Shutdown::Both);
    },
    |tls| drop(tls.0.get_mut().sock.write_all(b"250 2.0.0 taken\r\n")),
    |tls| {
        tls.0.get_mut().conn.send_close_notify();
        let _ = tls.0.get_mut().flush();
        let _ = tls.0.get_mut().sock.write_all(b"250 2.0.0 taken\r\n");
    },
];

#[test]
fn a_mail_server_whose_tls_ends_before_its_verdict_has_taken_none() {
    for (number, verdict) in VERDICTS.into_iter().enumerate() {
        let backend = TlsBackend::offering("", verdict);
        let scene = Scene::new(backend.address, UNCHECKED, "");
        let mut client = scene.starttls();
        for command in ["EHLO client.test\r\n", "MAIL FROM:<a@client.test>\r\n", "RCPT TO:<b@example.com>\r\n"] {
            assert!(client.reply(command).starts_with("250"), "{command}");
        }
        assert!(client.reply("DATA\r\n").starts_with("354"));
        let begun = Instant::now();
        let reply = client.reply("Subject: kept\r\n\r\nText.\r\n.\r\n");
        assert!(reply.starts_with("451 4."), "{number}: {reply}");
        assert!(begun.elapsed() < ENDED, "{number}");
        assert!(client.reply("QUIT\r\n").starts_with("221"), "{number}");
        assert_eq!(scene.gateway.status()["messages"]["accepted_total"], 0, "{number}");
    }
}
