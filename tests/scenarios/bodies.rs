//! A message arrives as it was sent, to the byte, whatever is in it and however it comes.

use tests::peers::client::{Client, stuffed};
use tests::peers::net::Family;
use tests::peers::setting::Setting;

const HEADER: &str = "Subject: a body\r\n\r\n";

fn client(setting: &Setting) -> Client {
    Client::to_gateway(&setting.trio.client, Family::V4)
}

/// The next message in the mailbox is this one.
fn arrived(setting: &mut Setting, what: &str, sent: &[u8]) {
    let received = setting.backend.next_message();
    let same = received.iter().zip(sent).take_while(|(received, sent)| received == sent).count();
    let excerpt = |bytes: &[u8]| bytes[same..(same + 60).min(bytes.len())].escape_ascii().to_string();
    // Not `assert_eq!`, which would print all of both.
    assert!(
        received == sent,
        "{what}: {} bytes sent, {} received; byte {same} on: sent `{}`, received `{}`",
        sent.len(),
        received.len(),
        excerpt(sent),
        excerpt(&received)
    );
}

/// Everything short, over one connection: a fault in one shows in the next.
#[test]
fn of_every_shape() {
    let Some(mut setting) = Setting::new("bodies of every shape", &[]) else { return };
    let long = |length: usize| format!("{HEADER}{}\r\nshort\r\n", "x".repeat(length)).into_bytes();
    let with = |body: &[u8]| [HEADER.as_bytes(), body].concat();
    let every_byte: Vec<u8> = (1..=255).filter(|byte| !matches!(byte, b'\r' | b'\n')).chain(*b"\r\n").collect();
    let cases = [
        ("dots", "", with(b".\r\n..\r\n.\r\n...\r\n.a\r\na.\r\n. \r\n.\r\n")),
        ("nothing but a dot", "", with(b".\r\n")),
        ("an empty body", "", with(b"")),
        ("empty lines", "", with(b"\r\n\r\n\r\n")),
        ("a line of 998", "", long(998)),
        ("a line of 5000", "", long(5000)),
        ("a line of 60000", "", long(60_000)),
        ("every byte but NUL, CR, LF", "BODY=8BITMIME", with(&every_byte)),
        ("eight bits undeclared", "", with("Grüße\r\n".as_bytes())),
        ("UTF-8", "BODY=8BITMIME", with("中文 · ελληνικά\r\n".as_bytes())),
    ];
    let mut client = client(&setting);
    for (what, parameters, message) in &cases {
        client.envelope("a@client.test", "box@local.test", parameters);
        client.send(&stuffed(message));
        let reply = client.reply();
        assert_eq!(reply.code, 250, "{what}: {reply:?}");
        arrived(&mut setting, what, message);
    }
    client.quit();
}

/// No header, no body, not a byte.
#[test]
fn of_no_bytes() {
    let Some(mut setting) = Setting::new("a message of no bytes", &[]) else { return };
    let mut client = client(&setting);
    assert_eq!(client.mail("a@client.test", "box@local.test", b"").code, 250);
    client.quit();
    arrived(&mut setting, "no bytes", b"");
}

#[test]
fn of_fifty_megabytes() {
    let Some(mut setting) = Setting::new("a message of 50 MB", &[]) else { return };
    let block = lines(1_000_000);
    let mut message = HEADER.as_bytes().to_vec();
    for number in 0..50 {
        message.extend_from_slice(format!("block {number}\r\n").as_bytes());
        message.extend_from_slice(&block);
    }
    let mut client = client(&setting);
    let reply = client.mail("a@client.test", "box@local.test", &message);
    assert_eq!(reply.code, 250, "{reply:?}");
    client.quit();
    arrived(&mut setting, "50 MB", &message);
}

/// The whole session, commands and body, with a packet for every byte.
#[test]
fn of_one_byte_a_packet() {
    let Some(mut setting) = Setting::new("one byte a packet", &[]) else { return };
    let message = [HEADER.as_bytes(), &lines(1500)].concat();
    let mut client = client(&setting);
    for step in ["EHLO client.test", "MAIL FROM:<a@client.test>", "RCPT TO:<box@local.test>", "DATA"] {
        trickle(&mut client, format!("{step}\r\n").as_bytes());
        client.reply();
    }
    trickle(&mut client, &stuffed(&message));
    client.expect(2);
    client.quit();
    arrived(&mut setting, "one byte a packet", &message);
}

fn trickle(client: &mut Client, bytes: &[u8]) {
    for byte in bytes {
        client.send(std::slice::from_ref(byte));
    }
}

/// At least so many bytes of lines of every length up to 200, some empty, every eighth or so with a dot in front. The same
/// every time.
fn lines(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut text = Vec::new();
    while text.len() < bytes {
        let word = next();
        if word.is_multiple_of(8) {
            text.push(b'.');
        }
        for _ in 0..(word >> 8) % 25 {
            text.extend(next().to_le_bytes().map(|byte| 33 + byte % 94));
        }
        text.extend_from_slice(b"\r\n");
    }
    text
}
