use std::fs;
use std::path::Path;

use super::{Dialog, sink};
use crate::sink::SinkIdentity;

fn messages(maildir: &Path, part: &str) -> Vec<String> {
    let entries = fs::read_dir(maildir.join(part)).unwrap();
    entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn messages_are_kept_with_their_envelope_and_client() {
    let folder = tempfile::tempdir().unwrap();
    let maildir = folder.path().join("mail");
    let (sink, events) = sink(|options| {
        options.identity = SinkIdentity::Xclient;
        options.maildir = Some(maildir.clone());
    });
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("XCLIENT ADDR=192.0.2.7", "220");
    dialog.expect("EHLO far.test", "250");
    dialog.begin();
    dialog.send("Subject: x\r\n\r\n..dot\n");
    dialog.expect("\r\n.", "250");
    assert_eq!(
        messages(&maildir, "new"),
        ["Return-Path: <from@far.test>\r\nDelivered-To: someone@local.test\r\n\
          X-Sink-Client: 192.0.2.7 (via 127.0.0.1, by XCLIENT); helo=far.test\r\nSubject: x\r\n\r\n.dot\n\r\n"]
    );
    assert!(messages(&maildir, "tmp").is_empty() && messages(&maildir, "cur").is_empty());
    // The envelope's lines are not the message's.
    assert_eq!(events.message().size, 21);
}

#[test]
fn what_is_not_accepted_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, events) = sink(|options| {
        options.maildir = Some(folder.path().into());
        options.faults = vec!["eod=451".parse().unwrap()];
    });
    let mut dialog = Dialog::greeted(&sink);
    dialog.begin();
    dialog.expect("x\r\n.", "451");
    assert!(!events.message().accepted);
    // A client that goes in the middle, too.
    dialog.begin();
    assert_eq!(messages(folder.path(), "tmp").len(), 1);
    drop(dialog);
    sink.stop();
    assert!(messages(folder.path(), "tmp").is_empty() && messages(folder.path(), "new").is_empty());
}

#[test]
fn a_maildir_that_fails_is_a_451() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, _events) = sink(|options| options.maildir = Some(folder.path().into()));
    fs::remove_dir(folder.path().join("tmp")).unwrap();
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("MAIL FROM:<>", "250");
    dialog.expect("RCPT TO:<a@local.test>", "250");
    dialog.expect("DATA", "451 4.3.0");
    dialog.expect("BDAT 4 LAST\r\nQUITNOOP", "451 4.3.0");
    assert!(dialog.reply().starts_with("250"));
    fs::create_dir(folder.path().join("tmp")).unwrap();
    dialog.expect("DATA", "354");
    fs::remove_dir(folder.path().join("new")).unwrap();
    dialog.expect(".", "451 4.3.0");
}
