//! Both ends of a connection in one process.

use super::*;

/// A client and a server, and what is between them.
struct Ends {
    client: Channel,
    server: Channel,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

/// Hands `bytes` in as `length` at a time; the plain text that comes out.
fn feed(
    channel: &mut Channel,
    bytes: &[u8],
    length: usize,
    answers: &mut Vec<u8>,
) -> Result<(Vec<u8>, Received), TlsFault> {
    let (mut text, mut all) = (Vec::new(), Received::default());
    for part in bytes.chunks(length.max(1)) {
        let mut input = [channel.held(), part].concat();
        let mut plain = vec![0; input.len()];
        let mut wire = Wire::default();
        let received = channel.receive(&mut input, &mut plain, &mut wire);
        answers.extend_from_slice(wire.as_slice());
        let received = received?;
        text.extend_from_slice(&plain[..received.plain]);
        all.plain += received.plain;
        all.established |= received.established;
        all.closed |= received.closed;
    }
    Ok((text, all))
}

impl Ends {
    fn new(acceptor: &Acceptor, connector: &Connector) -> Self {
        let mut wire = Wire::default();
        let client = connector.connect(&mut wire).unwrap();
        let to_server = wire.as_slice().to_vec();
        Self { client, server: acceptor.accept().unwrap(), to_server, to_client: Vec::new() }
    }

    /// Until nobody has anything to say; each packet cut into pieces of `length`.
    fn shake(&mut self, length: usize) -> Result<(), TlsFault> {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            let bytes = std::mem::take(&mut self.to_server);
            feed(&mut self.server, &bytes, length, &mut self.to_client)?;
            let bytes = std::mem::take(&mut self.to_client);
            feed(&mut self.client, &bytes, length, &mut self.to_server)?;
        }
        Ok(())
    }
}

struct House {
    _directory: tempfile::TempDir,
    acceptor: Acceptor,
    ca: std::path::PathBuf,
}

fn house(minimum: TlsVersion) -> House {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = authority.issue(directory.path(), "mx", &PKCS_ECDSA_P256_SHA256, &["mx.example.com"]);
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, &authority.pem).unwrap();
    House { acceptor: acceptor(&[files], minimum), _directory: directory, ca }
}

impl House {
    fn connector(&self, name: &str, demands: bool) -> Connector {
        Connector::new(name, &Verify::Ca(self.ca.clone()), demands, None).unwrap()
    }
}

#[test]
fn text_goes_both_ways_however_it_is_cut() {
    let house = house(TlsVersion::Tls12);
    let connector = house.connector("mx.example.com", true);
    for length in [1, 2, 7, 100, 1 << 20] {
        let mut ends = Ends::new(&house.acceptor, &connector);
        ends.shake(length).unwrap();
        assert!(ends.client.is_established() && ends.server.is_established());
        for size in [0, 1, 100, 16_384, 16_385, 50_000] {
            let text: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut wire = Wire::default();
            ends.client.send(&text, b".", &mut wire).unwrap();
            let (heard, _) = feed(&mut ends.server, wire.as_slice(), length, &mut Vec::new()).unwrap();
            assert!(heard == [&text[..], b"."].concat(), "{size} bytes cut at {length}");
            assert_eq!(ends.server.held.capacity(), 0, "an idle channel holds no buffer");
        }
    }
}

#[test]
fn both_know_what_was_agreed_upon() {
    let house = house(TlsVersion::Tls12);
    let mut ends = Ends::new(&house.acceptor, &house.connector("mx.example.com", true));
    assert_eq!(ends.server.facts(), None);
    ends.shake(1 << 20).unwrap();
    let (client, server) = (ends.client.facts().unwrap(), ends.server.facts().unwrap());
    assert_eq!(server.to_string(), "TLS 1.3 TLS_AES_128_GCM_SHA256 X25519MLKEM768");
    assert_eq!(client.to_string(), server.to_string());
    assert!(client.verified && !server.verified && !client.resumed);
}

#[test]
fn a_client_that_comes_again_takes_up_its_session() {
    let house = house(TlsVersion::Tls12);
    let connector = house.connector("mx.example.com", true);
    for resumed in [false, true, true] {
        let mut ends = Ends::new(&house.acceptor, &connector);
        ends.shake(1 << 20).unwrap();
        assert_eq!(ends.server.facts().unwrap().resumed, resumed);
        assert!(ends.client.facts().unwrap().verified);
    }
}

#[test]
fn a_partial_record_does_not_hinder_writing() {
    let house = house(TlsVersion::Tls12);
    let mut ends = Ends::new(&house.acceptor, &house.connector("mx.example.com", true));
    ends.shake(1 << 20).unwrap();
    let mut wire = Wire::default();
    ends.client.send(b"hello", b"", &mut wire).unwrap();
    let (first, second) = wire.as_slice().split_at(8);
    assert_eq!(feed(&mut ends.server, first, 1 << 20, &mut Vec::new()).unwrap().1.plain, 0);
    let mut answer = Wire::default();
    ends.server.send(b"welcome", b"", &mut answer).unwrap();
    assert_eq!(feed(&mut ends.server, second, 1 << 20, &mut Vec::new()).unwrap().0, b"hello");
    assert_eq!(feed(&mut ends.client, answer.as_slice(), 1 << 20, &mut Vec::new()).unwrap().0, b"welcome");
}

#[test]
fn an_end_is_announced_and_told_once() {
    let house = house(TlsVersion::Tls12);
    let mut ends = Ends::new(&house.acceptor, &house.connector("mx.example.com", true));
    let mut wire = Wire::default();
    ends.server.close(&mut wire);
    assert!(wire.is_empty(), "nothing is said within a handshake");
    ends.shake(1 << 20).unwrap();
    ends.client.send(b"QUIT", b"", &mut wire).unwrap();
    ends.client.close(&mut wire);
    let (text, received) = feed(&mut ends.server, wire.as_slice(), 1 << 20, &mut Vec::new()).unwrap();
    assert_eq!((&text[..], received.closed), (&b"QUIT"[..], true));
    // The other direction is still open.
    wire.clear();
    ends.server.send(b"221", b"", &mut wire).unwrap();
    ends.server.close(&mut wire);
    let (text, received) = feed(&mut ends.client, wire.as_slice(), 1 << 20, &mut Vec::new()).unwrap();
    assert_eq!((&text[..], received.closed), (&b"221"[..], true));
}

#[test]
fn a_changed_byte_is_found() {
    let house = house(TlsVersion::Tls12);
    let connector = house.connector("mx.example.com", true);
    for at in [0, 5, 12] {
        let mut ends = Ends::new(&house.acceptor, &connector);
        ends.shake(1 << 20).unwrap();
        let mut wire = Wire::default();
        ends.client.send(b"MAIL FROM:<>", b"", &mut wire).unwrap();
        let mut bytes = wire.as_slice().to_vec();
        bytes[at] ^= 0x40;
        assert!(feed(&mut ends.server, &bytes, 1 << 20, &mut Vec::new()).is_err(), "byte {at}");
    }
}

/// What was said before a fault counts: a backend's verdict on a message is not lost for what comes behind it.
#[test]
fn text_before_a_fault_is_given_first() {
    let house = house(TlsVersion::Tls12);
    let connector = house.connector("mx.example.com", true);
    for (behind, last) in [(&b"garbage"[..], false), (b"\x17\x03\x03\x00\x05short", false), (b"garbage", true)] {
        let mut ends = Ends::new(&house.acceptor, &connector);
        ends.shake(1 << 20).unwrap();
        let mut wire = Wire::default();
        ends.server.send(b"250-Ok\r\n", b"250 queued\r\n", &mut wire).unwrap();
        let bytes = [wire.as_slice(), behind].concat();
        if last {
            assert_eq!(ends.client.last_text(bytes), b"250-Ok\r\n250 queued\r\n");
        } else {
            let mut alert = Vec::new();
            let (text, received) = feed(&mut ends.client, &bytes, 1 << 20, &mut alert).unwrap();
            assert_eq!((&text[..], received.closed), (&b"250-Ok\r\n250 queued\r\n"[..], false));
            assert!(!alert.is_empty(), "the peer is told");
        }
        let fault = ends.client.fault().cloned().unwrap();
        assert_eq!(feed(&mut ends.client, b"more", 1 << 20, &mut Vec::new()).unwrap_err(), fault);
        assert_eq!(ends.client.send(b"QUIT\r\n", b"", &mut Wire::default()).unwrap_err(), fault);
        assert_eq!(ends.client.held(), b"");
    }
}

#[test]
fn head_and_body_share_as_few_records_as_hold_them() {
    let house = house(TlsVersion::Tls12);
    let mut ends = Ends::new(&house.acceptor, &house.connector("mx.example.com", true));
    ends.shake(1 << 20).unwrap();
    for (head, body, records) in [
        (0, 0, 0),
        (6, 0, 1),
        (0, 4096, 1),
        (100, 4096, 1),
        (100, 16_284, 1),
        (100, 16_285, 2),
        (16_384, 1, 2),
        (20_000, 1, 3),
        (0, 65_536, 4),
        (1, 65_536, 5),
    ] {
        let (head, body) = (vec![b'h'; head], vec![b'b'; body]);
        let mut wire = Wire::default();
        ends.client.send(&head, &body, &mut wire).unwrap();
        let (mut rest, mut found) = (wire.as_slice(), 0);
        while let [_, _, _, high, low, behind @ ..] = rest {
            rest = &behind[usize::from(u16::from_be_bytes([*high, *low]))..];
            found += 1;
        }
        assert_eq!(found, records, "{} and {} bytes", head.len(), body.len());
        let (text, _) = feed(&mut ends.server, wire.as_slice(), 1 << 20, &mut Vec::new()).unwrap();
        assert!(text == [head, body].concat());
    }
}

#[test]
fn whose_certificate_it_is_matters() {
    let house = house(TlsVersion::Tls12);
    let other = self::house(TlsVersion::Tls12);
    let fault = |connector: &Connector| {
        let mut ends = Ends::new(&house.acceptor, connector);
        ends.shake(1 << 20).unwrap_err().to_string()
    };
    assert_eq!(
        fault(&house.connector("mail.example.com", true)),
        "its certificate is for mx.example.com, not for mail.example.com"
    );
    assert_eq!(
        fault(&other.connector("mx.example.com", true)),
        "its certificate was signed by nobody that is trusted here"
    );
    let digest = house.acceptor.certificates().states()[0].leaf.as_ref().unwrap().key_digest;
    let mut wrong = digest;
    wrong[0] ^= 1;
    let pinned = |digest| Connector::new("mail.example.net", &Verify::Pins(vec![Pin(digest)]), true, None).unwrap();
    assert_eq!(fault(&pinned(wrong)), "its certificate has none of the pinned keys");
    for (connector, verified) in [
        (pinned(digest), true),
        (house.connector("mx.example.com", false), true),
        (house.connector("mail.example.com", false), false),
        (other.connector("mx.example.com", false), false),
        (Connector::new("mx.example.com", &Verify::Nothing, true, None).unwrap(), false),
    ] {
        for _ in 0..2 {
            let mut ends = Ends::new(&house.acceptor, &connector);
            ends.shake(1 << 20).unwrap();
            assert_eq!(ends.client.facts().unwrap().verified, verified, "{connector:?}");
        }
        let mut ends = Ends::new(&house.acceptor, &connector);
        ends.shake(1 << 20).unwrap();
        assert_eq!(ends.client.peer_key_digest(), Some(digest));
    }
}

#[test]
fn the_peer_hears_why_it_is_not_believed() {
    let house = house(TlsVersion::Tls12);
    let mut ends = Ends::new(&house.acceptor, &house.connector("mail.example.com", true));
    ends.shake(1 << 20).unwrap_err();
    let alert = std::mem::take(&mut ends.to_server);
    let fault = feed(&mut ends.server, &alert, 1 << 20, &mut Vec::new()).unwrap_err();
    assert_eq!(fault, TlsFault::CertificateRefused("bad_certificate".to_owned()));
}

#[test]
fn what_is_no_tls_is_told_apart() {
    let house = house(TlsVersion::Tls12);
    for (bytes, expected) in [
        (&b"EHLO client.example\r\n"[..], FaultCause::ClearText),
        (b"\r\n", FaultCause::ClearText),
        (&[0xff; 64], FaultCause::NotTls),
        (&[0x00; 64], FaultCause::NotTls),
        (&[0x16; 64], FaultCause::NotTls),
        // An alert where a hello was due.
        (&[21, 3, 1, 0, 2, 2, 40], FaultCause::NoCommonCipher),
        (&[21, 3, 1, 0, 2, 2, 48], FaultCause::CertificateRefused),
    ] {
        let mut server = house.acceptor.accept().unwrap();
        let fault = feed(&mut server, bytes, 1 << 20, &mut Vec::new()).unwrap_err();
        assert_eq!(fault.cause(), expected, "{bytes:?}: {fault}");
    }
}

#[test]
fn garbage_in_a_handshake_ends_it_and_panics_nowhere() {
    let house = house(TlsVersion::Tls12);
    let connector = house.connector("mx.example.com", true);
    let mut wire = Wire::default();
    connector.connect(&mut wire).unwrap();
    let hello = wire.as_slice().to_vec();
    for at in 0..hello.len() {
        let mut bytes = hello.clone();
        bytes[at] ^= 0xff;
        let mut server = house.acceptor.accept().unwrap();
        // Whatever it is taken for, no byte of it makes a session.
        let _ = feed(&mut server, &bytes, 1 << 20, &mut Vec::new());
        assert!(!server.is_established());
    }
}

#[test]
fn a_message_without_end_is_not_kept() {
    let house = house(TlsVersion::Tls12);
    let mut server = house.acceptor.accept().unwrap();
    // A hello that says it has 65,535 bytes, in records of one byte each.
    let header = [1, 0, 0xff, 0xff];
    let mut records: Vec<u8> = header.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    records.extend((0..70_000).flat_map(|_| [22, 3, 1, 0, 1, 0]));
    assert!(feed(&mut server, &records, 4096, &mut Vec::new()).is_err());
    assert!(server.held.capacity() <= 2 * 64 * 1024 + 4096);
}
