//! Whole sessions: a client that says anything, and a backend that is honest or is not.

use smtp_gateway::session::MessageOutcome;
use smtp_gateway::smtp::reply::{REPLY_MAX, ReplyParse, parse_reply};

use crate::dialog::Packets;
use crate::dialog::model::Answer;
use crate::dialog::play::Play;
use crate::dialog::settings::Map;
use crate::dialog::stage::Stage;

use super::bytes::Bytes;

/// Longest beginning of a command that waits for its end, and a CR.
const UNREAD_MAX: usize = 2049;

fn settings(bytes: &mut Bytes<'_>) -> Map {
    let offers =
        ["PIPELINING,CHUNKING,SIZE,8BITMIME,SMTPUTF8,DSN,BINARYMIME", "PIPELINING", "CHUNKING,8BITMIME", "SIZE 1000"];
    let first = [
        ("bare_newline", bytes.pick(&["normalize", "reject"])),
        ("early_talk", bytes.pick(&["reject", "log"])),
        ("identity", bytes.pick(&["none", "xclient", "trace-header", "proxy-v1", "proxy-v2"])),
        ("text_line", bytes.pick(&["65536", "20"])),
        ("header_size", bytes.pick(&["262144", "30"])),
        ("message_size", bytes.pick(&["100000", "1000", "60"])),
        ("received_hops", bytes.pick(&["1", "100"])),
    ];
    let (errors, servers) = bytes.pick(&[("100", "1"), ("3", "1"), ("100", "3"), ("3", "3")]);
    let then = [("errors", errors), ("servers", servers), ("backend_offers", bytes.pick(&offers))];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    first.into_iter().chain(then).map(owned).collect()
}

/// However the packets are cut, an honest backend and the client hear the same; the client is told nothing else, and every
/// message that the backend took is one that the client sent.
pub(super) fn session_packed(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut settings = settings(&mut bytes);
    if settings["identity"].starts_with("proxy") {
        // The model reads SMTP.
        settings.insert("identity".to_owned(), "none".to_owned());
    }
    let answers: Vec<Answer> = bytes
        .string()
        .iter()
        .map(|byte| match byte % 16 {
            0 => Answer::No,
            1 => Answer::Later,
            2 => Answer::Closing,
            3 => Answer::Junk,
            4 => Answer::Close,
            5 => Answer::YesAtLength,
            _ => Answer::Yes,
        })
        .collect();
    let cuts = bytes.cuts();
    let mut segments = Vec::new();
    while !bytes.is_empty() && segments.len() < 40 {
        segments.push(bytes.string().to_vec());
    }
    let (whole, model, stage) = Play::run(&settings, &segments, &answers, &[]);
    let (packed, ..) = Play::run(&settings, &segments, &answers, &cuts);
    assert_eq!(whole, packed);
    let accepted = stage.reports.iter().filter(|report| report.outcome == MessageOutcome::Accepted).count();
    assert!(accepted <= model.accepted, "{accepted} acknowledged, {} accepted", model.accepted);
    assert_replies(whole.client.as_bytes());
}

fn assert_replies(mut told: &[u8]) {
    while !told.is_empty() {
        let ReplyParse::Complete { used, .. } = parse_reply(told) else {
            panic!("the client is told `{}`", told.escape_ascii());
        };
        told = &told[used..];
    }
}

/// What has passed in one session.
#[derive(Debug, Default)]
struct Passed {
    client_said: Vec<u8>,
    backend_said: Vec<u8>,
    client_told: Vec<u8>,
    /// On the present connection.
    backend_told: Vec<u8>,
    backend_told_octets: usize,
}

/// Whatever both ends say and whatever happens: nothing panics, spins or grows; the client is told nothing positive about mail
/// that the backend did not say; and the backend hears nothing of the client's before it knows who the client is.
pub(super) fn session(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut settings = settings(&mut bytes);
    for (key, value) in [("starttls", "yes"), ("asks_recipients", "yes"), ("greeting", "held"), ("unnamed", "yes")] {
        if bytes.byte() % 8 == 1 {
            settings.insert(key.to_owned(), value.to_owned());
        }
    }
    let tls = bytes.pick(&["off", "off", "off", "opportunistic", "required"]);
    settings.insert("backend_tls".to_owned(), tls.to_owned());
    let mut stage = Stage::new(&settings, Packets::Whole).expect("settings");
    let mut passed = Passed::default();
    for _ in 0..200 {
        carry(&mut stage, &mut passed);
        if bytes.is_empty() || stage.client_closed {
            break;
        }
        happen(&mut stage, &mut bytes, &mut passed);
        let (client, backend) = stage.unread();
        // What comes in a handshake is for TLS, which is not here.
        let waits = stage.session.wants_client() && !stage.securing_client;
        assert!(!waits || client <= UNREAD_MAX, "{client} octets of the client wait");
        assert!(backend <= REPLY_MAX, "{backend} octets of the backend wait");
    }
    carry(&mut stage, &mut passed);
    assert_identity(&settings["identity"], &passed.backend_told);
    assert_positive_replies(&passed);
}

/// Carries what was said, and answers what is asked.
fn carry(stage: &mut Stage, passed: &mut Passed) {
    passed.client_told.append(&mut stage.to_client);
    passed.backend_told_octets += stage.to_backend.len();
    passed.backend_told.append(&mut stage.to_backend);
    // The bounds of invariants in `split.rs`: a reply for each line, twice the octets for bare newlines and stuffed dots.
    let (client, backend) = (passed.client_said.len(), passed.backend_said.len());
    assert!(passed.client_told.len() <= 1000 + 200 * client + 130 * backend);
    assert!(passed.backend_told_octets <= 1000 + 4 * client + 200 * backend + 700 * (1 + client / 10));
    stage.backend_closed = false;
}

fn happen(stage: &mut Stage, bytes: &mut Bytes<'_>, passed: &mut Passed) {
    let replies: [&[u8]; 10] = [
        b"220 backend\r\n",
        b"250-backend\r\n250-XCLIENT ADDR NAME HELO\r\n250-CHUNKING\r\n250 PIPELINING\r\n",
        b"250-backend\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n",
        b"250 2.1.0 taken\r\n",
        b"354 go on\r\n",
        b"550 5.1.1 no\r\n",
        b"451 later\r\n",
        b"421 closing\r\n",
        b"250-half",
        b"221 bye\r\n",
    ];
    let envelope = b"EHLO client.example\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<user@local.test>\r\n";
    match bytes.byte() % 24 {
        0..=6 => client_says(stage, passed, bytes.string()),
        7 => client_says(stage, passed, envelope),
        8..=12 => backend_says(stage, passed, bytes.pick(&replies)),
        13 => backend_says(stage, passed, bytes.string()),
        14 if stage.dialling => dial(stage, passed, bytes),
        14 => backend_says(stage, passed, b"250 2.1.0 taken\r\n"),
        15 => stage.backend_closes(),
        16 => {
            let (seconds, stalled) = (u64::from(bytes.byte()) * 2, bytes.coin());
            stage.time_passes(seconds, stalled);
        }
        17 => stage.client_closes(),
        18 => stage.client_breaks(),
        19 => stage.drain(),
        20 => stage.drain_now(),
        21 => stage.stick(bytes.coin()),
        // Where nothing was asked, nothing is answered.
        22 => drop(stage.answered(bytes.pick(&["pass", "550 no", "450 later"]))),
        _ => {
            let how = bytes.pick(&["", "", "no"]);
            drop(stage.secured(how).or_else(|_| stage.client_secured(how)));
        }
    }
}

fn client_says(stage: &mut Stage, passed: &mut Passed, said: &[u8]) {
    passed.client_said.extend_from_slice(said);
    stage.client_sends(said);
}

fn backend_says(stage: &mut Stage, passed: &mut Passed, said: &[u8]) {
    if stage.dialling {
        return;
    }
    passed.backend_said.extend_from_slice(said);
    stage.backend_sends(said);
}

fn dial(stage: &mut Stage, passed: &mut Passed, bytes: &mut Bytes<'_>) {
    passed.backend_told.clear();
    stage.dialled(bytes.pick(&["", "", "", "refused", "hangs"])).expect("it was dialled, and all is carried");
}

/// On a connection that carried mail, who the client is came first.
fn assert_identity(mode: &str, told: &[u8]) {
    let shown = String::from_utf8_lossy(told);
    let Some(mail) = shown.find("MAIL FROM:") else { return };
    let before = &shown[..mail];
    match mode {
        "xclient" => assert!(before.contains("\r\nXCLIENT ADDR="), "{shown}"),
        "proxy-v1" => assert!(before.starts_with("PROXY TCP4 203.0.113.9 "), "{shown}"),
        "proxy-v2" => assert!(before.starts_with("\r\n\r\n\0\r\nQUIT\n"), "{shown}"),
        _ => {}
    }
}

/// Every positive reply about mail is one of the backend's, and is told no more often than it was said.
fn assert_positive_replies(passed: &Passed) {
    let said = plain(&passed.backend_said);
    let client = passed.client_said.to_ascii_lowercase();
    let own = count(&client, b"noop") + count(&client, b"rset");
    let hellos = count(&client, b"ehlo") + count(&client, b"helo");
    let told = plain(&passed.client_told);
    let (mut rest, mut seen) = (told.as_slice(), std::collections::HashMap::<&[u8], usize>::new());
    let mut hello_replies = 0;
    while !rest.is_empty() {
        let ReplyParse::Complete { reply, used } = parse_reply(rest) else {
            panic!("the client is told `{}`", rest.escape_ascii());
        };
        let raw = &rest[..used];
        rest = &rest[used..];
        if matches!(reply.code, 250 | 354) {
            if reply.text().starts_with("mx.example.com") {
                hello_replies += 1;
            } else {
                *seen.entry(raw).or_default() += 1;
            }
        }
    }
    assert!(hello_replies <= hellos + count(&said, b"mx.example.com"));
    for (reply, told) in seen {
        let allowed = count(&said, reply) + if reply == b"250 2.0.0 Ok\r\n" { own } else { 0 };
        assert!(told <= allowed, "`{}` is told {told} times, and may be {allowed} times", reply.escape_ascii());
    }
}

/// With every octet that replies are not made of as `?`.
fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|&byte| if matches!(byte, b' '..=b'~' | b'\r' | b'\n') { byte } else { b'?' }).collect()
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}
