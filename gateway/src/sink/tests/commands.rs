use super::{Dialog, sink};
use crate::sink::event::Event;
use crate::sink::session::{Flow, Session};
use crate::sink::shared::Shared;
use crate::sink::{Options, SinkIdentity, start};

/// Relaying as a mail server decides it: by the client it believes in.
#[test]
fn relaying_is_for_trusted_clients() {
    let (sink, events) = sink(|options| {
        options.identity = SinkIdentity::Xclient;
        options.trust = vec!["192.0.2.0/24".parse().unwrap()];
    });
    for (client, relays) in [("192.0.2.7", true), ("198.51.100.7", false), ("[UNAVAILABLE]", false)] {
        let mut dialog = Dialog::greeted(&sink);
        dialog.expect(format!("XCLIENT ADDR={client}"), "220");
        dialog.expect("EHLO far.test", "250");
        dialog.expect("MAIL FROM:<a@far.test>", "250");
        dialog.expect("RCPT TO:<someone@LOCAL.test>", "250 2.1.5");
        dialog.expect("RCPT TO:<postmaster>", "250 2.1.5");
        let foreign = if relays { "250 2.1.5" } else { "550 5.7.1 Relay access denied" };
        dialog.expect("RCPT TO:<someone@elsewhere.test>", foreign);
        dialog.expect("RCPT TO:<someone@local.test.elsewhere.test>", foreign);
    }
    let denied: Vec<_> = std::iter::from_fn(|| events.0.try_recv().ok())
        .filter_map(|event| match event {
            Event::Denied(denied) => Some(denied.recipient),
            _ => None,
        })
        .collect();
    assert_eq!(denied.len(), 4);
    assert_eq!(denied[0], "someone@elsewhere.test");
}

/// The confused backend: it trusts the gateway's address, and is not told of another.
#[test]
fn a_sink_that_trusts_its_peer_relays_for_it() {
    let (sink, _events) = sink(|options| options.trust = vec!["127.0.0.0/8".parse().unwrap()]);
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("MAIL FROM:<a@far.test>", "250");
    dialog.expect("RCPT TO:<someone@elsewhere.test>", "250");
}

#[test]
fn commands_and_their_replies() {
    let (sink, _events) = sink(|_| {});
    let mut dialog = Dialog::connect(&sink);
    dialog.reply();
    dialog.expect("MAIL FROM:<a@far.test>", "503 5.5.1 EHLO first");
    dialog.expect("EHLO", "501 5.5.4");
    dialog.expect("ehlo client.test", "250");
    for (command, reply) in [
        ("RCPT TO:<a@local.test>", "503 5.5.1 MAIL first"),
        ("DATA", "503 5.5.1 MAIL first"),
        ("MAIL FROM: <a@far.test>", "501 5.5.4"),
        ("MAIL FROM:a@far.test", "501 5.5.4"),
        ("MAIL FROM:<a@>", "501 5.1.7"),
        ("MAIL FROM:<a@far.test> SIZE=2000000000", "552 5.3.4"),
        ("MAIL FROM:<a@far.test> SIZE=x", "555 5.5.4"),
        ("MAIL FROM:<a@far.test> BODY=BINARYMIME", "555 5.5.4"),
        ("MAIL FROM:<a@far.test> AUTH=<>", "555 5.5.4"),
        ("MAIL FROM:<ä@far.test>", "553 5.6.7"),
        ("MAIL FROM:<ä@far.test> SMTPUTF8 BODY=8bitmime SIZE=10 RET=HDRS ENVID=a+2Bb", "250 2.1.0"),
        ("MAIL FROM:<a@far.test>", "503 5.5.1"),
        ("DATA", "503 5.5.1 No recipient"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a>", "501 5.1.3"),
        ("RCPT TO:<a@local.test> NOTIFY=SOMETIMES", "555 5.5.4"),
        ("RCPT TO:<ä@local.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@local.test", "250 2.1.5"),
        ("DATA now", "501 5.5.4"),
        ("RSET", "250 2.0.0"),
        ("DATA", "503 5.5.1"),
        ("NOOP whatever", "250 2.0.0"),
        ("VRFY someone", "252 2.0.0"),
        ("EXPN list", "500 5.5.2"),
        ("STARTTLS", "500 5.5.2"),
        ("", "500 5.5.2"),
        ("NOOP\nRSET", "500 5.5.2"),
        ("NOOP\0", "500 5.5.2"),
        ("HELO client.test", "250 sink.test"),
        ("MAIL FROM:<a@far.test> SIZE=1", "555 5.5.4"),
        ("QUIT now", "501 5.5.4"),
        ("QUIT", "221 2.0.0"),
    ] {
        dialog.expect(command, reply);
    }
    assert_eq!(dialog.rest(), Ok(vec![]));
}

#[test]
fn long_lines_are_skipped_and_endless_ones_end_the_session() {
    let (sink, _events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect(format!("NOOP {}", "x".repeat(2000)), "250");
    dialog.expect(format!("NOOP {}", "x".repeat(200_000)), "500 5.5.2 Line too long");
    dialog.expect("NOOP", "250");
    let _ = std::io::Write::write_all(dialog.0.get_mut(), &vec![b'x'; 2 << 20]);
    assert!(dialog.reply().starts_with("421 4.7.0 The line does not end"));
}

#[test]
fn too_many_errors_end_the_session() {
    let (sink, _events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    for _ in 0..100 {
        dialog.expect("WHAT", "500");
    }
    dialog.expect("WHAT", "500");
    assert!(dialog.reply().starts_with("421 4.7.0"));
}

#[test]
fn recipients_have_a_limit() {
    let (sink, events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("MAIL FROM:<>", "250");
    for number in 0..1000 {
        dialog.expect(format!("RCPT TO:<{number}@local.test>"), "250 2.1.5");
    }
    dialog.expect("RCPT TO:<too@local.test>", "452 4.5.3");
    dialog.expect("DATA", "354");
    dialog.expect(".", "250");
    assert_eq!(events.message().recipients.len(), 1000);
}

/// However a session's bytes arrive, the replies are the same.
#[test]
fn segments_do_not_matter() {
    let script = b"EHLO client.test\r\nMAIL FROM:<a@far.test>\r\nRCPT TO:<b@local.test>\r\nRCPT TO:<b@far.test>\r\nDATA\r\n\
        one\r\n..two\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<b@local.test>\r\nBDAT 7\r\n\r\n.\r\nabBDAT 2 LAST\r\n\r\nNOOP\nx\r\nQUIT\r\n";
    let replies = |step: usize| {
        let options = Options { quiet: true, local_domains: vec!["local.test".into()], ..Options::default() };
        let peer = ([192, 0, 2, 7], 4711).into();
        let mut session = Session::new(Shared::new(options).unwrap().into(), peer);
        let (mut out, mut held) = (Vec::new(), Vec::new());
        assert_eq!(session.take(b"", &mut out).flow, Flow::Read);
        let last = script.chunks(step).map(|chunk| {
            held.extend_from_slice(chunk);
            let taken = session.take(&held, &mut out);
            held.drain(..taken.used);
            taken.flow
        });
        assert!(matches!(last.last(), Some(Flow::End(_))));
        String::from_utf8(out).unwrap()
    };
    let whole = replies(script.len());
    assert_eq!(whole.matches("\r\n250 2.0.0 Ok: taken\r\n").count(), 2);
    assert!(whole.ends_with("500 5.5.2 CR, LF or NUL within a command\r\n221 2.0.0 Bye\r\n"), "{whole}");
    for step in 1..100 {
        assert_eq!(replies(step), whole, "{step} bytes at a time");
    }
}

#[test]
fn a_port_is_not_shared_with_another_sink() {
    let (first, _events) = sink(|_| {});
    let error = start(Options { listen: first.address(), ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains(&first.address().to_string()), "{error}");
    let address = first.address();
    first.stop();
    start(Options { listen: address, quiet: true, ..Options::default() }).unwrap().stop();
}

#[test]
fn options_are_checked() {
    let listen = ([127, 0, 0, 1], 0).into();
    let error = start(Options { listen, hostname: "a\r\nb".into(), ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("is no host name"), "{error}");
    let error = start(Options { listen, maildir: Some("/dev/null/x".into()), ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("/dev/null/x/tmp"), "{error}");
}
