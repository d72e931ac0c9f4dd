//! The invariants of the design that concern one session, each with a test named after it. 5 has no TLS to hold in yet; 6, 7
//! and 10 concern the kernel side, 9 and 11 the sources (`gateway/src/house`).

use std::collections::HashMap;

use tests::dialog::Packets;
use tests::dialog::stage::Stage;

fn stage(settings: &[(&str, &str)]) -> Stage {
    let settings: HashMap<String, String> =
        settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut stage = Stage::new(&settings, Packets::Whole).unwrap();
    stage.to_client.clear();
    stage
}

/// What the client received since last asked.
fn client(stage: &mut Stage) -> String {
    String::from_utf8(std::mem::take(&mut stage.to_client)).unwrap()
}

/// What the backend received since last asked.
fn backend(stage: &mut Stage) -> String {
    String::from_utf8_lossy(&std::mem::take(&mut stage.to_backend)).into_owned()
}

/// Past MAIL and RCPT, with a backend that offers all.
fn in_transaction(settings: &[(&str, &str)]) -> Stage {
    let mut stage = stage(&[&[("backend_offers", "PIPELINING,CHUNKING")], settings].concat());
    stage.client_sends(b"EHLO client.example\r\n");
    client(&mut stage);
    stage.client_sends(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<user@local.test>\r\n");
    stage.dialled("").unwrap();
    stage.backend_sends(b"220 backend\r\n");
    stage.backend_sends(b"250-backend\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    stage.backend_sends(b"250 Ok\r\n250 Ok\r\n");
    client(&mut stage);
    backend(&mut stage);
    stage
}

#[test]
fn invariant_1_no_answer_of_our_own_for_mail() {
    let bodies: [&[&[u8]]; 3] =
        [&[b"DATA\r\n", b"x\r\n.\r\n"], &[b"BDAT 1 LAST\r\nx"], &[b"BDAT 1\r\n", b"xBDAT 0 LAST\r\n"]];
    let verdicts = ["250 2.0.0 queued as 7\r\n", "250-a\r\n250 b\r\n", "451 4.3.0 later\r\n", "554-a\r\n554 b\r\n"];
    for body in bodies {
        for verdict in verdicts {
            let mut stage = in_transaction(&[]);
            for part in body {
                stage.client_sends(part);
                match backend(&mut stage).as_str() {
                    "DATA\r\n" => stage.backend_sends(b"354 go on\r\n"),
                    chunks if chunks.ends_with("BDAT 0 LAST\r\n") => stage.backend_sends(b"250 chunk\r\n"),
                    _ => {}
                }
            }
            let before = client(&mut stage);
            assert!(!before.contains("250 2"), "{before} was said before the backend said anything");
            stage.backend_sends(verdict.as_bytes());
            assert_eq!(client(&mut stage), verdict);
            assert_eq!(stage.session.totals().accepted, u32::from(verdict.starts_with("250")));
        }
        let mut stage = in_transaction(&[]);
        for part in body {
            stage.client_sends(part);
            if backend(&mut stage) == "DATA\r\n" {
                stage.backend_sends(b"354 go on\r\n");
            }
        }
        client(&mut stage);
        stage.backend_closes();
        assert!(client(&mut stage).lines().all(|line| line.starts_with("451 ")), "a lost backend means 4xx");
    }
}

#[test]
fn invariant_2_nothing_passes_uninterpreted() {
    for (sent, received) in [
        ("rcpt   to: <b@local.test>   notify=never \r\n", "RCPT TO:<b@local.test> NOTIFY=never\r\n"),
        ("RCPT TO:<@r.example:b@local.test>\r\n", "RCPT TO:<b@local.test>\r\n"),
        ("rset \r\n", "RSET\r\n"),
        ("bdat  01   last\r\nx", "BDAT 1 LAST\r\nx"),
        ("RCPT TO:<b@local.test>\nRSET\r\n", ""),
        ("NOOP RCPT TO:<b@local.test>\r\n", ""),
        ("VRFY b\r\nHELP\r\nEXPN b\r\nSTARTTLS\r\nAUTH PLAIN AA==\r\nX-ANY thing\r\n", ""),
    ] {
        let mut stage = in_transaction(&[("backend_offers", "PIPELINING,CHUNKING,DSN")]);
        stage.client_sends(sent.as_bytes());
        assert_eq!(backend(&mut stage), received, "{sent:?}");
    }
    let mut stage = stage(&[("backend_offers", "STARTTLS,XCLIENT ADDR,X-EXTRA a b,size 1000,AUTH PLAIN,8bitmime")]);
    stage.client_sends(b"EHLO client.example\r\n");
    assert_eq!(
        client(&mut stage),
        "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n",
        "clients are told what the gateway can parse, and nothing else"
    );
}

#[test]
fn invariant_3_identity_fails_closed() {
    let xclient: [&[&str]; 6] = [
        &["220 backend\r\n", "250 backend\r\n"],
        &["220 backend\r\n", "250-backend\r\n250 XCLIENT NAME HELO\r\n"],
        &["220 backend\r\n", "500 what\r\n"],
        &["220 backend\r\n", "250-backend\r\n250 XCLIENT ADDR\r\n", "550 no\r\n"],
        &["220 backend\r\n", "250-backend\r\n250 XCLIENT ADDR\r\n", "250 well\r\n"],
        &["220 backend\r\n500 what\r\n"],
    ];
    let proxy: [&[&str]; 3] = [
        &["220 backend\r\n500 what\r\n"],
        &["220 backend\r\n", "500 what\r\n", "500 what\r\n"],
        &["220 backend\r\n250 what\r\n"],
    ];
    let cases = xclient.map(|said| ("xclient", said)).into_iter();
    let cases = cases.chain(proxy.map(|said| ("proxy-v1", said))).chain(proxy.map(|said| ("proxy-v2", said)));
    for (identity, said) in cases {
        let mut stage = stage(&[("identity", identity), ("backend_offers", "PIPELINING")]);
        stage.client_sends(b"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<user@local.test>\r\n");
        client(&mut stage);
        stage.dialled("").unwrap();
        for reply in said {
            stage.backend_sends(reply.as_bytes());
        }
        let answers = client(&mut stage);
        let refused = answers.lines().all(|line| line.starts_with("451 4.3.5 ")) && answers.lines().count() == 2;
        assert!(refused, "{identity} {said:?}: {answers}");
        let received = backend(&mut stage);
        assert!(!received.contains("MAIL") && !received.contains("RCPT"), "{identity} {said:?}: {received}");
        assert!(stage.backend_closed, "{identity} {said:?}: the connection is given up");
    }
}

#[test]
fn invariant_4_clients_cannot_claim_identity() {
    let claims = [
        "XCLIENT ADDR=127.0.0.1\r\n",
        "xclient addr=127.0.0.1 login=root\r\n",
        "XClient\tADDR=127.0.0.1\r\n",
        "XFORWARD ADDR=127.0.0.1\r\n",
        "PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n",
        "proxy UNKNOWN\r\n",
        "XADDR 127.0.0.1\r\n",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\r\n",
    ];
    for claim in claims {
        let mut fresh = stage(&[("identity", "xclient")]);
        let mut greeted = stage(&[("identity", "xclient")]);
        greeted.client_sends(b"EHLO client.example\r\n");
        let mut busy = in_transaction(&[]);
        for stage in [&mut fresh, &mut greeted, &mut busy] {
            let before = stage.session.client_addr();
            client(stage);
            stage.client_sends(claim.as_bytes());
            let answer = client(stage);
            assert!(answer.lines().all(|line| line.starts_with('5')) && !answer.is_empty(), "{claim:?}: {answer}");
            assert_eq!(backend(stage), "", "{claim:?}");
            assert!(!stage.dialling, "{claim:?}");
            // Whoever speaks PROXY where nobody does is told so, and there is nothing more to say.
            let is_header = claim.to_ascii_uppercase().starts_with("PROXY ") || claim.starts_with("\r\n\r\n\0");
            assert!(!stage.client_closed || is_header, "{claim:?}");
            assert_eq!(stage.session.client_addr(), before);
        }
    }
}

/// A HELO name is the client's own choice, and stays a name in what the backend is told.
#[test]
fn invariant_4_a_name_is_no_attribute() {
    for hello in ["EHLO a ADDR=127.0.0.1", "EHLO a LOGIN=root", "HELO a\tADDR=127.0.0.1"] {
        let mut stage = stage(&[("identity", "xclient")]);
        let before = stage.session.client_addr();
        stage.client_sends(format!("{hello}\r\nMAIL FROM:<a@client.example>\r\n").as_bytes());
        assert_eq!(stage.session.client_addr(), before, "{hello}");
        if !stage.dialling {
            // The name was refused, and so was the mail.
            assert!(client(&mut stage).lines().all(|line| line.starts_with('5')), "{hello}");
            continue;
        }
        client(&mut stage);
        stage.dialled("").unwrap();
        stage.backend_sends(b"220 backend\r\n");
        backend(&mut stage);
        stage.backend_sends(b"250-backend\r\n250 XCLIENT ADDR PORT PROTO HELO LOGIN NAME\r\n");
        let told = backend(&mut stage);
        assert!(told.starts_with("XCLIENT ADDR="), "{hello}: {told}");
        assert!(told.matches(" ADDR=").count() == 1 && !told.contains("ADDR=127.0.0.1"), "{hello}: {told}");
        assert!(!told.contains("LOGIN=root"), "{hello}: {told}");
    }
}

/// Says `again` until the session ends; how often.
fn until_the_end(stage: &mut Stage, again: &[u8], answer: &[u8]) -> usize {
    for count in 1..=5000 {
        stage.client_sends(again);
        if !stage.to_backend.is_empty() && !stage.client_closed {
            stage.to_backend.clear();
            stage.backend_sends(answer);
        }
        if stage.client_closed {
            return count;
        }
    }
    panic!("{} could go on for ever", again.escape_ascii());
}

#[test]
fn invariant_8_everything_has_a_limit_commands() {
    for command in
        ["NOOP", "RSET", "HELP", "VRFY user", "EXPN user", "EHLO x", "HELO x", "bogus", "", "STARTTLS", "DATA"]
    {
        let mut stage = stage(&[]);
        let count = until_the_end(&mut stage, format!("{command}\r\n").as_bytes(), b"");
        assert!(count <= 101, "{command}: {count}");
        assert!(client(&mut stage).contains("\r\n421 4.7.0 "), "{command}");
    }
    for (command, answer) in [
        ("RCPT TO:<user@foreign.example>\r\n", ""),
        ("RCPT TO:<user@local.test>\r\n", "550 no\r\n"),
        ("RCPT TO:<user@local.test>\r\n", "451 later\r\n"),
        ("RCPT TO:<user@local.test>\r\n", "250 Ok\r\n"),
        ("MAIL FROM:<>\r\n", ""),
        ("DATA\r\n", "451 later\r\n"),
        ("DATA\r\n", "554 no\r\n"),
        ("BDAT 0\r\n", "250 Ok\r\n"),
        ("BDAT x\r\n", ""),
        ("RSET\r\nMAIL FROM:<>\r\n", "250 Ok\r\n"),
        ("EHLO x\r\n", ""),
    ] {
        let mut stage = in_transaction(&[]);
        until_the_end(&mut stage, command.as_bytes(), answer.as_bytes());
    }
}

#[test]
fn invariant_8_everything_has_a_limit_octets() {
    let block = [b'x'; 4096];
    let mut endless_line = stage(&[]);
    assert!(until_the_end(&mut endless_line, &block, b"") * block.len() < 300_000);

    let limits = [("message_size", "100000"), ("header_size", "50000")];
    for (begin, again) in [
        ("DATA\r\n", "\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("DATA\r\n", "X-Header: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"),
        ("DATA\r\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("DATA\r\n", "\n.\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("BDAT 18446744073709551615 LAST\r\n", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ] {
        let mut stage = in_transaction(&limits);
        stage.client_sends(begin.as_bytes());
        if backend(&mut stage) == "DATA\r\n" {
            stage.backend_sends(b"354 go on\r\n");
        }
        let count = until_the_end(&mut stage, again.as_bytes(), b"");
        assert!(count * again.len() <= 200_000 + again.len(), "{begin:?} {again:?}: {count}");
    }

    for (begin, line) in [("", "220-"), ("220 backend\r\n", "250-")] {
        let mut stage = stage(&[]);
        stage.client_sends(b"EHLO client.example\r\nMAIL FROM:<>\r\n");
        client(&mut stage);
        stage.dialled("").unwrap();
        stage.backend_sends(begin.as_bytes());
        let mut sent = 0;
        while !stage.backend_closed {
            stage.backend_sends(format!("{line}{}\r\n", "x".repeat(100)).as_bytes());
            sent += 106;
            assert!(sent <= 20_000, "an endless {line}");
        }
        assert!(client(&mut stage).starts_with("451 "));
    }
}

#[test]
fn invariant_8_everything_has_a_limit_memory() {
    // Commands for a backend that is not open yet.
    let mut stage = stage(&[("backend_offers", "PIPELINING,DSN")]);
    stage.client_sends(b"EHLO client.example\r\nMAIL FROM:<>\r\n");
    let line = format!("RCPT TO:<user@local.test> ORCPT=rfc822;{}\r\n", "x".repeat(1500));
    let mut taken = 0;
    while stage.session.wants_client() {
        stage.client_sends(line.as_bytes());
        taken += line.len();
        assert!(taken <= 32 << 10, "commands are held without bound");
    }
    // Replies owed.
    let mut stage = in_transaction(&[]);
    let mut owed = 0;
    while stage.session.wants_client() {
        stage.client_sends(b"RCPT TO:<user@local.test>\r\nNOOP\r\n");
        owed += 1;
        assert!(owed <= 200, "replies are owed without bound");
    }
}

#[test]
fn invariant_8_everything_has_a_limit_time() {
    let silent: [(&str, &[u8], u64); 4] = [
        ("a client that says nothing", b"", 300),
        ("half a command", b"EHL", 300),
        ("a transaction", b"MAIL FROM:<>\r\n", 300),
        ("a chunk", b"BDAT 5 LAST\r\nx", 300),
    ];
    for (what, said, seconds) in silent {
        let mut stage = if said.len() > 5 { in_transaction(&[]) } else { stage(&[]) };
        stage.client_sends(said);
        stage.time_passes(seconds - 1, false);
        assert!(!stage.client_closed, "{what} is cut off too early");
        stage.time_passes(1, false);
        assert!(stage.client_closed, "{what} may go on");
    }
}
