//! Lines, commands, addresses, replies, EHLO and xtext.

use smtp_gateway::smtp::address::{ForwardPath, ReversePath, is_domain, parse_literal};
use smtp_gateway::smtp::command::{Command, encode_bdat, encode_mail, encode_rcpt, parse_command};
use smtp_gateway::smtp::domains::DomainSet;
use smtp_gateway::smtp::ehlo::{Extensions, Keywords, Offer};
use smtp_gateway::smtp::labels::folds_onto;
use smtp_gateway::smtp::line::{Line, LineFault, skip_line, split_line};
use smtp_gateway::smtp::reply::{REPLY_MAX, Reply, ReplyParse, parse_reply, read_reply};
use smtp_gateway::smtp::xtext;

use super::bytes::{Bytes, pieces};

/// Longest line in the `line` target.
const LINE_MAX: usize = 24;

/// Lines are the same however they are packed, and what the rules say.
pub(super) fn line(data: &[u8]) {
    let mut bytes = Bytes(data);
    let cuts = bytes.cuts();
    let stream = bytes.0;
    let whole = read_lines(&[stream]);
    assert_eq!(whole, read_lines(&pieces(stream, &cuts)));
    let mut expected = Vec::new();
    let mut rest = stream;
    while let Some(length) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let text = &rest[..length];
        let fault = text.iter().find_map(|byte| match byte {
            b'\r' => Some(LineFault::BareCr),
            b'\n' => Some(LineFault::BareLf),
            0 => Some(LineFault::Nul),
            _ => None,
        });
        expected.push(match fault {
            _ if length + 2 > LINE_MAX => Err(LineFault::TooLong),
            Some(fault) => Err(fault),
            None => Ok(text.to_vec()),
        });
        rest = &rest[length + 2..];
    }
    assert_eq!(whole, expected);
}

/// Reads a stream in pieces, as a session does.
fn read_lines(pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, LineFault>> {
    let (mut buffer, mut lines, mut skipping) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (line, used) = if skipping {
                let (used, ended) = skip_line(&buffer);
                skipping = !ended;
                (ended.then_some(Err(LineFault::TooLong)), used)
            } else {
                match split_line(&buffer, LINE_MAX) {
                    Line::Incomplete => (None, 0),
                    Line::Complete { text, used } => (Some(Ok(text.to_vec())), used),
                    Line::Faulty { fault, used } => (Some(Err(fault)), used),
                    Line::Overlong { used } => {
                        skipping = true;
                        (None, used)
                    }
                }
            };
            lines.extend(line);
            buffer.drain(..used);
            if used == 0 {
                break;
            }
        }
        assert!(buffer.len() <= LINE_MAX, "{} bytes are kept of a line of {LINE_MAX}", buffer.len());
    }
    lines
}

/// What was understood is written in a form that is understood alike, and is one line.
pub(super) fn command(data: &[u8]) {
    let Some(written) = written_anew(data) else { return };
    let line = written.strip_suffix(b"\r\n").expect("a command ends in CRLF");
    assert!(!line.iter().any(u8::is_ascii_control), "a control character in `{}`", line.escape_ascii());
    assert_eq!(written_anew(line).as_deref(), Some(written.as_slice()), "`{}`", line.escape_ascii());
}

/// MAIL, RCPT or BDAT as the backend would get it.
fn written_anew(line: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match parse_command(line) {
        Ok(Command::Mail { path, params }) => encode_mail(&path, params.iter(), &mut out),
        Ok(Command::Rcpt { path, params }) => encode_rcpt(&path, params.iter(), &mut out),
        Ok(Command::Bdat { length, last }) => encode_bdat(length, last, &mut out),
        Ok(_) => return None,
        Err(error) => {
            assert!((500..=559).contains(&error.code) && !error.text.is_empty());
            return None;
        }
    }
    Some(out)
}

/// An address written anew is the same address, and holds nothing that begins another one.
pub(super) fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (parse_literal(text), folds_onto(text, &['@', '%']));
    let mut set = DomainSet::new();
    if set.insert(text).is_ok() {
        assert!(!set.is_empty());
    }
    if is_domain(text) {
        assert!(!text.contains(['@', '<', '>', ' ', '\r', '\n', '"']));
    }
    if let Some((ReversePath::Mailbox(mailbox), rest)) = ReversePath::parse(text) {
        assert!(text.ends_with(rest) && text.contains(mailbox.text));
        let _ = set.contains(&mailbox.domain);
    }
    if let Some((ForwardPath::Mailbox(mailbox), _)) = ForwardPath::parse(text) {
        let mut written = b"<".to_vec();
        mailbox.write_to(&mut written);
        written.push(b'>');
        let written = String::from_utf8(written).expect("text was text");
        let Some((ForwardPath::Mailbox(again), "")) = ForwardPath::parse(&written) else {
            panic!("{text:?} is written {written:?}, which is no mailbox");
        };
        assert_eq!(again.domain, mailbox.domain, "{written:?}");
        assert!(!again.needs_quotes, "{written:?}");
        let plain = |local: &str| local.strip_prefix('"').and_then(|l| l.strip_suffix('"')).unwrap_or(local).to_owned();
        assert_eq!(plain(again.local_part), plain(mailbox.local_part), "{written:?}");
        let outside: String =
            if again.local_part.starts_with('"') { again.domain_text().to_owned() } else { again.text.to_owned() };
        assert_eq!(outside.matches('@').count(), usize::from(outside == again.text), "{written:?}");
    }
}

/// A reply is read as soon as it is whole and not before, and what a client is told of it is a reply with the same meaning.
pub(super) fn reply(data: &[u8]) {
    let parsed = parse_reply(data);
    if let ReplyParse::Complete { used, .. } = read_reply(data) {
        assert!(used <= REPLY_MAX);
    }
    let ReplyParse::Complete { reply, used } = parsed else { return };
    assert_eq!(parse_reply(&data[..used]), ReplyParse::Complete { reply, used });
    for shorter in used.saturating_sub(40)..used {
        assert_eq!(parse_reply(&data[..shorter]), ReplyParse::Incomplete, "{shorter} of {used}");
    }
    for utf8 in [false, true] {
        let mut told = Vec::new();
        reply.encode_into(utf8, &mut told);
        let ReplyParse::Complete { reply: again, used } = parse_reply(&told) else {
            panic!("`{}` is no reply", told.escape_ascii());
        };
        assert_eq!((again.code, used), (reply.code, told.len()));
        assert_eq!(again.lines().count(), reply.lines().count());
        assert!(utf8 || told.is_ascii());
        assert!(!told.iter().any(|byte| byte.is_ascii_control() && !b"\r\n".contains(byte)));
    }
}

/// What clients are told that a backend offers is a part of what it offers.
pub(super) fn ehlo(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').take(100).collect();
    let mut raw = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        raw.extend_from_slice(if index + 1 == lines.len() { b"250 " } else { b"250-" });
        raw.extend(line.iter().filter(|byte| !matches!(byte, b'\r' | 0)));
        raw.extend_from_slice(b"\r\n");
    }
    let ReplyParse::Complete { reply, .. } = parse_reply(&raw) else { return };
    let (offer, keywords) = (Offer::from_reply(&reply), Keywords::from_reply(&reply));
    let allowed = Extensions::PIPELINING | Extensions::SIZE | Extensions::DSN | Extensions::CHUNKING;
    let mut told = Vec::new();
    keywords.encode_for_client("mx.example.com", allowed, 1000, &mut told);
    let ReplyParse::Complete { reply: told, .. } = parse_reply(&told) else {
        panic!("`{}` is no reply", told.escape_ascii());
    };
    let again = Offer::from_reply(&told);
    assert!((offer.extensions & allowed | Extensions::PIPELINING).contains(again.extensions));
    assert!(again.size_max.is_none_or(|size| size <= 1000));
    assert_reply_is_plain(&told);
}

fn assert_reply_is_plain(reply: &Reply<'_>) {
    assert!(reply.lines().flatten().all(|byte| matches!(byte, b' '..=b'~')), "{reply:?}");
}

/// xtext is read as what was written.
pub(super) fn xtext(data: &[u8]) {
    let mut written = Vec::new();
    xtext::encode_into(data, &mut written);
    assert!(written.iter().all(u8::is_ascii_graphic));
    assert_eq!(xtext::decode(&written).as_deref(), Some(data));
    if let Some(value) = xtext::decode(data) {
        let mut again = Vec::new();
        xtext::encode_into(&value, &mut again);
        assert_eq!(xtext::decode(&again), Some(value));
    }
}
