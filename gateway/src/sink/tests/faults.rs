use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use super::{Dialog, Events, sink};
use crate::sink::{Sink, SinkIdentity};

fn faulty(faults: &[&str]) -> (Sink, Events) {
    sink(|options| {
        options.identity = SinkIdentity::Xclient;
        options.faults = faults.iter().map(|fault| fault.parse().unwrap()).collect();
    })
}

/// Every point of a session: what is sent there, and how many replies that brings, the point's own being the last.
const POINTS: [(&str, &str, usize); 11] = [
    ("connect", "", 0),
    ("banner", "", 1),
    ("ehlo", "EHLO c.test\r\n", 1),
    ("xclient", "XCLIENT ADDR=127.0.0.1\r\n", 1),
    ("mail", "EHLO c.test\r\nMAIL FROM:<>\r\n", 2),
    ("rcpt", "RCPT TO:<a@local.test>\r\n", 1),
    ("data", "DATA\r\n", 1),
    ("body", "text\r\n", 0),
    ("eod", ".\r\n", 1),
    ("bdat", "MAIL FROM:<>\r\nRCPT TO:<a@local.test>\r\nBDAT 1 LAST\r\nx", 3),
    ("quit", "QUIT\r\n", 1),
];

/// Holds a session up to `point`, and returns what it heard of the fault there.
fn at(point: &str, action: &str) -> Result<String, ErrorKind> {
    let (sink, _events) = faulty(&[&format!("{point}={action}")]);
    let mut dialog = Dialog::connect(&sink);
    for (name, bytes, replies) in POINTS {
        dialog.send(bytes);
        let here = name == point;
        for _ in usize::from(here && replies > 0)..replies {
            dialog.reply();
        }
        if here {
            break;
        }
    }
    dialog.rest().map(|rest| String::from_utf8_lossy(&rest).into_owned())
}

#[test]
fn close_and_421_and_half_at_every_point() {
    for (point, ..) in POINTS {
        assert_eq!(at(point, "close").as_deref(), Ok(""), "{point}");
        assert_eq!(at(point, "421").as_deref(), Ok("421 4.3.0 A fault that was asked for\r\n"), "{point}");
        let half = at(point, "half").unwrap();
        assert!(!half.is_empty() && !half.ends_with('\n'), "{point}: {half:?}");
    }
}

#[test]
fn reset_at_every_point() {
    for (point, ..) in POINTS {
        assert_eq!(at(point, "reset"), Err(ErrorKind::ConnectionReset), "{point}");
    }
}

#[test]
fn a_reply_takes_the_place_of_the_command() {
    let (sink, events) = faulty(&["eod=451", "rcpt=delay:1"]);
    let mut dialog = Dialog::greeted(&sink);
    dialog.begin();
    dialog.expect("text\r\n.", "451 4.3.0 A fault");
    assert!(!events.message().accepted);
    assert_eq!(sink.totals().messages, 0);
    dialog.expect("DATA", "503 5.5.1 MAIL first");

    let (sink, _events) = faulty(&["mail=550"]);
    let mut dialog = Dialog::greeted(&sink);
    dialog.expect("MAIL FROM:<>", "550 5.3.0");
    dialog.expect("RCPT TO:<a@local.test>", "503");
    dialog.expect("QUIT", "221");

    let (sink, _events) = faulty(&["banner=554"]);
    let mut dialog = Dialog::connect(&sink);
    assert!(dialog.reply().starts_with("554 5.3.0"));
    dialog.expect("EHLO c.test", "503");
    dialog.expect("QUIT", "221");
}

#[test]
fn junk_is_no_reply() {
    let (sink, _events) = faulty(&["ehlo=junk"]);
    let mut dialog = Dialog::connect(&sink);
    dialog.reply();
    dialog.send("EHLO c.test\r\nQUIT\r\n");
    assert_eq!(dialog.rest().unwrap(), b"\xff\xfe\0 this is no reply\r\n221 2.0.0 Bye\r\n");
}

#[test]
fn a_reply_at_the_body_is_one_too_many() {
    let (sink, events) = faulty(&["body=452"]);
    let mut dialog = Dialog::greeted(&sink);
    dialog.begin();
    dialog.send("text\r\n");
    assert!(dialog.reply().starts_with("452 4.3.0"));
    dialog.expect(".", "250 2.0.0 Ok: taken");
    assert!(events.message().accepted);
}

#[test]
fn hang_is_silence_until_the_client_goes() {
    let (sink, events) = faulty(&["eod=hang"]);
    let mut dialog = Dialog::greeted(&sink);
    dialog.begin();
    dialog.send("text\r\n.\r\nNOOP\r\n");
    assert!(!events.message().accepted);
    dialog.0.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = dialog.0.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn delays_hold_back_the_reply_and_nothing_before_it() {
    let (sink, events) = faulty(&["eod=delay:80", "bdat=delay:80", "rcpt=delay:40"]);
    let mut dialog = Dialog::greeted(&sink);
    let started = Instant::now();
    let envelope = "MAIL FROM:<>\r\nRCPT TO:<a@local.test>\r\nRCPT TO:<a@local.test>\r\n";
    dialog.send(format!("{envelope}DATA\r\nx\r\n.\r\n{envelope}BDAT 1 LAST\r\nxQUIT\r\n"));
    let replies: Vec<_> = (0..10).map(|_| (dialog.reply(), started.elapsed().as_millis())).collect();
    // Each RCPT 40, each end of data 80, the BDAT another 80.
    let at_least = [0, 40, 80, 80, 160, 160, 200, 240, 400, 400];
    for ((reply, after_ms), at_least_ms) in replies.iter().zip(at_least) {
        assert!(*after_ms >= at_least_ms, "{reply:?} after {after_ms} ms: {replies:?}");
    }
    assert!(replies[0].1 < 40, "{replies:?}");
    assert!(replies[9].0.starts_with("221"));
    assert!(events.message().accepted && events.message().accepted);
}

#[test]
fn a_delay_may_precede_another_fault() {
    let (sink, _events) = faulty(&["connect=delay:30", "banner=delay:30", "banner=close"]);
    let started = Instant::now();
    assert_eq!(Dialog::connect(&sink).rest(), Ok(vec![]));
    assert!(started.elapsed() >= Duration::from_millis(60));
}
