//! Every fault of a backend at every point of a session: what the client hears, and what becomes of its session.
//!
//! Whatever happens, nothing is acknowledged that the backend did not acknowledge; nothing of the client's is sent before
//! the identity was accepted; and a session that goes on can still deliver.

use std::collections::HashMap;

use smtp_gateway::session::MessageOutcome;
use tests::dialog::Packets;
use tests::dialog::stage::Stage;

/// Where the backend fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Point {
    Dial,
    Banner,
    GatewayEhlo,
    Xclient,
    ClientEhlo,
    Mail,
    Rcpt,
    Data,
    Body,
    EndOfData,
    Chunk,
    LastChunk,
    Rset,
    Quit,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// 550; no connection, at the dial.
    Refused,
    /// Nothing until the gateway's patience ends.
    Hang,
    /// The connection is closed or reset.
    Close,
    /// Half a reply, then the connection is closed.
    Half,
    /// 421.
    Closing,
    /// A line that is no reply.
    Junk,
}

const FAULTS: [Fault; 6] = [Fault::Refused, Fault::Hang, Fault::Close, Fault::Half, Fault::Closing, Fault::Junk];

/// The client's reply for each of [`FAULTS`]; `!`: and its session ends. `-`: there is no such fault.
const TABLE: [(Point, [&str; 6]); 14] = [
    (Point::Dial, ["451 4.4.1", "451 4.4.2", "451 4.4.2", "-", "-", "-"]),
    (Point::Banner, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::GatewayEhlo, ["451 4.3.5", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::Xclient, ["451 4.3.5", "451 4.4.2", "451 4.4.2", "451 4.4.2", "451 4.3.5", "451 4.3.0"]),
    (Point::ClientEhlo, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::Mail, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::Rcpt, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::Data, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::Body, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::EndOfData, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::Chunk, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    (Point::LastChunk, ["550 5.7.1", "451 4.4.2", "451 4.4.2", "451 4.4.2", "421 4.3.2!", "451 4.3.0"]),
    // Whatever becomes of the backend's session, its transaction is gone, and that is what was asked for.
    (Point::Rset, ["550 5.7.1", "250 2.0.0", "250 2.0.0", "250 2.0.0", "421 4.3.2!", "250 2.0.0"]),
    // Nobody waits for the backend's farewell.
    (Point::Quit, ["221 2.0.0!", "221 2.0.0!", "221 2.0.0!", "221 2.0.0!", "221 2.0.0!", "221 2.0.0!"]),
];

/// What the client sends to come to a point, and what a backend in good health answers there.
struct Step(Point, &'static str, &'static str);

const ENVELOPE: [Step; 7] = [
    Step(Point::Dial, "MAIL FROM:<a@client.example>\r\n", ""),
    Step(Point::Banner, "", "220 backend\r\n"),
    Step(Point::GatewayEhlo, "", "250-backend\r\n250 XCLIENT ADDR\r\n"),
    Step(Point::Xclient, "", "220 backend\r\n"),
    Step(Point::ClientEhlo, "", "250-backend\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
    Step(Point::Mail, "", "250 2.1.0 Ok\r\n"),
    Step(Point::Rcpt, "RCPT TO:<user@local.test>\r\n", "250 2.1.5 Ok\r\n"),
];
const IN_DATA: [Step; 3] = [
    Step(Point::Data, "DATA\r\n", "354 go on\r\n"),
    Step(Point::Body, "x\r\n", ""),
    Step(Point::EndOfData, ".\r\n", "250 2.0.0 queued\r\n"),
];
const IN_CHUNKS: [Step; 2] = [
    Step(Point::Chunk, "BDAT 1\r\nx", "250 2.0.0 1\r\n"),
    Step(Point::LastChunk, "BDAT 1 LAST\r\ny", "250 2.0.0 queued\r\n"),
];
const WITHOUT_MESSAGE: [Step; 2] =
    [Step(Point::Rset, "RSET\r\n", "250 2.0.0 Ok\r\n"), Step(Point::Quit, "QUIT\r\n", "221 2.0.0 bye\r\n")];

fn steps_to(point: Point) -> Vec<&'static Step> {
    let tail: &[Step] = match point {
        Point::Data | Point::Body | Point::EndOfData => &IN_DATA,
        Point::Chunk | Point::LastChunk => &IN_CHUNKS,
        Point::Rset | Point::Quit => &WITHOUT_MESSAGE,
        _ => &[],
    };
    let mut steps: Vec<&Step> = Vec::new();
    for step in ENVELOPE.iter().chain(tail) {
        steps.push(step);
        if step.0 == point {
            break;
        }
    }
    steps
}

fn answer_in_health(stage: &mut Stage, step: &Step) {
    stage.to_client.clear();
    stage.to_backend.clear();
    match step.0 {
        Point::Dial => stage.dialled("").unwrap(),
        _ => stage.backend_sends(step.2.as_bytes()),
    }
}

/// A session at `point`, where the backend's answer is awaited; `heard` is what the backend got so far.
fn session_at(point: Point, packets: Packets) -> (Stage, Vec<u8>) {
    let settings: HashMap<String, String> =
        [("identity", "xclient"), ("backend_offers", "PIPELINING,CHUNKING")].map(|(k, v)| (k.into(), v.into())).into();
    let mut stage = Stage::new(&settings, packets).unwrap();
    stage.client_sends(b"EHLO client.example\r\n");
    let mut heard = Vec::new();
    let steps = steps_to(point);
    for (index, step) in steps.iter().enumerate() {
        stage.to_client.clear();
        stage.client_sends(step.1.as_bytes());
        heard.append(&mut stage.to_backend);
        if index + 1 < steps.len() {
            answer_in_health(&mut stage, step);
            heard.append(&mut stage.to_backend);
        }
    }
    if point != Point::Quit {
        stage.to_client.clear();
    }
    (stage, heard)
}

fn apply(stage: &mut Stage, point: Point, fault: Fault) {
    match (point, fault) {
        // What the backend does after QUIT reaches nobody.
        (Point::Quit, Fault::Hang) => return,
        (Point::Dial, Fault::Refused) => stage.dialled("refused").unwrap(),
        (Point::Dial, Fault::Close) => {
            stage.dialled("").unwrap();
            stage.backend_closes();
        }
        (_, Fault::Refused) => stage.backend_sends(b"550 5.7.1 no\r\n"),
        (Point::Body, Fault::Hang) => stage.time_passes(300, true),
        (_, Fault::Hang) => {
            if point == Point::Dial {
                stage.dialled("hangs").unwrap();
            }
            while stage.to_client.is_empty() {
                stage.time_passes(5, false);
            }
        }
        (_, Fault::Close) => stage.backend_closes(),
        (_, Fault::Half) => {
            stage.backend_sends(b"250-2.0.0 hal");
            stage.backend_closes();
        }
        (_, Fault::Closing) => stage.backend_sends(b"421 4.3.2 closing\r\n"),
        (_, Fault::Junk) => stage.backend_sends(b"what?\r\n"),
    }
    if point == Point::Body {
        stage.client_sends(b"y\r\n.\r\n");
    }
}

/// The last reply's code and enhanced code, with `!` if the session is over.
fn heard_by_client(stage: &Stage) -> String {
    let text = String::from_utf8_lossy(&stage.to_client);
    let last = text.lines().last().unwrap_or_default();
    let codes: Vec<&str> = last.split(' ').take(2).collect();
    format!("{}{}", codes.join(" "), if stage.client_closed { "!" } else { "" })
}

fn delivers(stage: &mut Stage) {
    stage.client_sends(b"RSET\r\n");
    if !stage.to_backend.is_empty() && !stage.backend_closed {
        stage.backend_sends(b"250 2.0.0 Ok\r\n");
    }
    stage.backend_closed = false;
    let (first, rest) = ENVELOPE.split_first().unwrap();
    stage.client_sends(first.1.as_bytes());
    let fresh = stage.dialling;
    if fresh {
        answer_in_health(stage, first);
    }
    for step in rest.iter().chain(&IN_DATA) {
        let opening = step.0 < Point::Mail;
        if fresh || !opening {
            stage.client_sends(step.1.as_bytes());
            answer_in_health(stage, step);
        }
    }
    assert_eq!(heard_by_client(stage), "250 2.0.0");
    assert_eq!(stage.session.totals().accepted, 1);
}

#[test]
fn every_fault_at_every_point_is_answered_as_the_table_says() {
    let mut wrong = Vec::new();
    for (point, expected) in TABLE {
        for (fault, expected) in FAULTS.into_iter().zip(expected).filter(|(_, expected)| *expected != "-") {
            for packets in [Packets::Whole, Packets::Bytes] {
                let (mut stage, _) = session_at(point, packets);
                apply(&mut stage, point, fault);
                let found = heard_by_client(&stage);
                if found != expected {
                    wrong.push(format!("{point:?} {fault:?} ({packets:?}): {expected} is due, {found} came"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_acknowledged_that_the_backend_did_not_acknowledge() {
    for (point, expected) in TABLE {
        for (fault, expected) in FAULTS.into_iter().zip(expected).filter(|(_, expected)| *expected != "-") {
            let (mut stage, _) = session_at(point, Packets::Whole);
            apply(&mut stage, point, fault);
            assert_eq!(stage.session.totals().accepted, 0, "{point:?} {fault:?}");
            let accepted = stage.reports.iter().filter(|report| report.outcome == MessageOutcome::Accepted);
            assert_eq!(accepted.count(), 0, "{point:?} {fault:?}");
            let message = matches!(point, Point::Body | Point::EndOfData | Point::Chunk | Point::LastChunk);
            assert_eq!(stage.reports.len(), usize::from(message), "{point:?} {fault:?}: a report a message");
            if !expected.ends_with('!') {
                delivers(&mut stage);
            }
        }
    }
}

#[test]
fn nothing_of_the_clients_is_sent_before_its_identity_was_accepted() {
    for (point, expected) in TABLE.into_iter().filter(|(point, _)| *point <= Point::Xclient) {
        for (fault, _) in FAULTS.into_iter().zip(expected).filter(|(_, expected)| *expected != "-") {
            let (mut stage, mut heard) = session_at(point, Packets::Whole);
            apply(&mut stage, point, fault);
            heard.append(&mut stage.to_backend);
            let heard = String::from_utf8(heard).unwrap();
            for line in heard.lines() {
                let own = line == "EHLO mx.example.com" || line == "XCLIENT ADDR=203.0.113.9";
                assert!(own, "{point:?} {fault:?}: the backend received {line}");
            }
        }
    }
}

/// With chunks, whole transactions may be sent before any reply: each recipient counts for the message it was named for.
#[test]
fn recipients_are_those_of_their_own_message() {
    let settings: HashMap<String, String> =
        HashMap::from([("backend_offers", "PIPELINING,CHUNKING")].map(|(key, value)| (key.into(), value.into())));
    let mut stage = Stage::new(&settings, Packets::Whole).unwrap();
    stage.client_sends(b"EHLO client.example\r\n");
    let envelope = |recipients: usize| {
        let mut sent = "MAIL FROM:<a@client.example>\r\n".to_owned();
        sent.push_str(&"RCPT TO:<user@local.test>\r\n".repeat(recipients));
        sent + "BDAT 1 LAST\r\nx"
    };
    stage.to_client.clear();
    stage.client_sends(format!("{}{}", envelope(3), envelope(1)).as_bytes());
    stage.dialled("").unwrap();
    stage.backend_sends(b"220 backend\r\n");
    stage.backend_sends(b"250-backend\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    // One of the first three is not known.
    for reply in ["250 Ok", "250 Ok", "550 no", "250 Ok", "250 first", "250 Ok", "250 Ok", "250 second"] {
        stage.backend_sends(format!("{reply}\r\n").as_bytes());
    }
    let accepted: Vec<u32> = stage.reports.iter().map(|report| report.recipients_accepted).collect();
    assert_eq!(accepted, [2, 1]);
}
