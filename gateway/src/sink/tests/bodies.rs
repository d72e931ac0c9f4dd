use super::{Dialog, sink};
use crate::sink::digest;

/// Stuffs dots, naively and right.
fn stuffed(body: &str) -> String {
    let body = body.replace("\r\n.", "\r\n..");
    if body.starts_with('.') { format!(".{body}") } else { body }
}

#[test]
fn a_message_is_told_with_its_envelope() {
    let (sink, events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("MAIL FROM:<\"a b\"@far.test> SIZE=100", "250");
    dialog.expect("RCPT TO:<one@local.test>", "250");
    dialog.expect("RCPT TO:<no@far.test>", "550");
    dialog.expect("RCPT TO:<two@local.test>", "250");
    dialog.expect("DATA", "354");
    dialog.expect("..stuffed\r\n.", "250 2.0.0 Ok: taken");
    assert!(matches!(events.next(), crate::sink::Event::Client(_)));
    let denied = events.next();
    assert_eq!(denied.to_string(), "relay denied to=<no@far.test>, client 127.0.0.1");
    let message = events.message();
    assert_eq!((&*message.from, &*message.helo, message.accepted), ("\"a b\"@far.test", "client.test", true));
    assert_eq!(message.recipients, ["one@local.test", "two@local.test"]);
    assert_eq!((message.size, message.digest), (10, digest(b".stuffed\r\n")));
    assert_eq!(
        crate::sink::Event::Message(message).to_string(),
        "message from=<\"a b\"@far.test> to=<one@local.test> to=<two@local.test> 10 bytes, client 127.0.0.1"
    );
    let totals = sink.totals();
    assert_eq!((totals.sessions, totals.messages, totals.octets), (1, 1, 10));
}

#[test]
fn a_pipelined_session_is_answered_in_order() {
    let (sink, events) = sink(|_| {});
    let mut dialog = Dialog::connect(&sink);
    let envelope = "MAIL FROM:<>\r\nRCPT TO:<a@local.test>\r\nDATA\r\n";
    dialog.send(format!("EHLO c.test\r\n{envelope}x\r\n.\r\n{envelope}.\r\nNOOP\r\nQUIT\r\n"));
    let codes: Vec<_> = (0..12).map(|_| dialog.reply()[..3].to_owned()).collect();
    assert_eq!(codes.join(" "), "220 250 250 250 354 250 250 250 354 250 250 221");
    assert_eq!(dialog.rest(), Ok(vec![]));
    assert_eq!((events.message().size, events.message().size), (3, 0));
}

#[test]
fn a_large_body_is_taken_whole() {
    let (sink, events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    dialog.begin();
    let body =
        ".begins with a dot, and is some seventy bytes long, as lines are\r\n\r\n..\r\n.\n.\r\n.a\r".repeat(40_000);
    let body = format!("{body}\r\n");
    dialog.expect(format!("{}.", stuffed(&body)), "250");
    let message = events.message();
    assert_eq!(message.size, u64::try_from(body.len()).unwrap());
    assert_eq!(message.digest, digest(body.as_bytes()));
}

#[test]
fn look_alikes_do_not_end_data() {
    let (sink, events) = sink(|_| {});
    for sequence in
        ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\n\0.\r\n", "\r\n. \r\n"]
    {
        let mut dialog = Dialog::greeted(&sink);
        dialog.begin();
        dialog.expect(format!("body{sequence}NOOP\r\n."), "250 2.0.0 Ok: taken");
        dialog.expect("QUIT", "221");
        assert!(events.message().size > 10, "{sequence:?}");
    }
}

#[test]
fn bdat_counts_octets() {
    let (sink, events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("MAIL FROM:<>", "250");
    dialog.expect("RCPT TO:<a@local.test>", "250");
    // Octets that look like an end of data, a command and stuffed dots are octets.
    dialog.send("BDAT 13\r\n..\r\n.\r\nQUIT\r\n");
    assert_eq!(dialog.reply(), "250 2.0.0 Ok, go on\r\n");
    dialog.expect("RCPT TO:<b@local.test>", "503 5.5.1");
    dialog.expect("DATA", "503 5.5.1");
    dialog.expect("BDAT 0", "250");
    dialog.send("bdat 2 last\r\nxyNOOP\r\n");
    assert_eq!(dialog.reply(), "250 2.0.0 Ok: taken\r\n");
    assert_eq!(dialog.reply(), "250 2.0.0 Ok\r\n");
    let message = events.message();
    assert_eq!((message.size, message.digest), (15, digest(b"..\r\n.\r\nQUIT\r\nxy")));
    dialog.expect("DATA", "503 5.5.1 MAIL first");
}

#[test]
fn a_refused_bdat_still_takes_its_octets() {
    let (sink, _events) = sink(|_| {});
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("BDAT 6\r\nQUIT\r\nNOOP", "503 5.5.1 MAIL first");
    assert!(dialog.reply().starts_with("250"));
    dialog.expect("MAIL FROM:<>", "250");
    dialog.expect("BDAT 6 LAST\r\nQUIT\r\nNOOP", "503 5.5.1 No recipient");
    assert!(dialog.reply().starts_with("250"));
}

#[test]
fn a_malformed_bdat_ends_the_transaction() {
    let (sink, _events) = sink(|_| {});
    for bad in ["BDAT", "BDAT x", "BDAT -1", "BDAT +1", "BDAT 1 FIRST", "BDAT 0x10 LAST"] {
        let mut dialog = Dialog::greeted(&sink);
        dialog.expect("MAIL FROM:<>", "250");
        dialog.expect("RCPT TO:<a@local.test>", "250");
        dialog.expect(bad, "501 5.5.4");
        dialog.expect("DATA", "503 5.5.1");
    }
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("BDAT 18446744073709551616", "552 5.3.4");
    assert_eq!(dialog.rest(), Ok(vec![]));
}
