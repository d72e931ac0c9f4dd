//! Bodies and headers.

use smtp_gateway::policy::header::{HeaderFacts, HeaderScan, HeaderVerdict, Keeps};
use smtp_gateway::smtp::body::{BareNewlineRule, BodyFault, BodyRules, BodyTranscoder, Framing, UNDECIDED_MAX};

use super::bytes::{Bytes, pieces};

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    sent: Vec<u8>,
    fault: Option<BodyFault>,
    octets: u64,
    /// What was left behind the end; `None`: no end.
    rest: Option<Vec<u8>>,
}

/// However a body is packed, the same is sent on; that is strict, ends where the client ended it, and holds what the client
/// meant.
pub(super) fn body(data: &[u8]) {
    let mut bytes = Bytes(data);
    let framing = bytes.pick(&[Framing::Dots, Framing::Octets]);
    let rules = BodyRules {
        line_max: bytes.pick(&[None, Some(8), Some(1000)]),
        bare_newline: bytes.pick(&[BareNewlineRule::Normalize, BareNewlineRule::Reject]),
    };
    let cuts = bytes.cuts();
    let stream = bytes.0;
    let whole = transcode(&[stream], &rules, framing);
    let packed = transcode(&pieces(stream, &cuts), &rules, framing);
    assert_eq!(whole.fault, packed.fault);
    if framing == Framing::Dots {
        assert_eq!(whole.rest, packed.rest);
    }
    if whole.fault.is_some() {
        return;
    }
    assert_eq!(whole, packed);
    let text = match (framing, whole.rest.is_some()) {
        (Framing::Dots, true) => whole.sent.strip_suffix(b".\r\n").expect("the end is sent"),
        _ => &whole.sent,
    };
    if framing == Framing::Dots && whole.rest.is_none() {
        // What is undecided has not been sent.
        return;
    }
    let received = decoded(text, framing == Framing::Dots);
    assert_eq!(received, meant(stream, framing), "`{}`", stream.escape_ascii());
    assert_eq!(whole.octets, received.len() as u64, "`{}`", stream.escape_ascii());
}

fn transcode(pieces: &[&[u8]], rules: &BodyRules, framing: Framing) -> Outcome {
    let mut transcoder = BodyTranscoder::new(framing);
    let (mut sent, mut fault, mut buffer) = (Vec::new(), None, Vec::new());
    for (index, piece) in pieces.iter().enumerate() {
        buffer.extend_from_slice(piece);
        let last = framing == Framing::Octets && index + 1 == pieces.len();
        loop {
            let step = if last {
                transcoder.last_step(&mut buffer, rules, &mut sent)
            } else {
                transcoder.step(&mut buffer, rules, &mut sent)
            };
            sent.extend_from_slice(&buffer[step.forward()]);
            fault = fault.or(step.fault);
            buffer.drain(..step.used);
            if step.ends() {
                buffer.extend(pieces[index + 1..].concat());
                return Outcome { sent, fault, octets: transcoder.content_octets(), rest: Some(buffer) };
            }
            if step.used == 0 && (!last || buffer.is_empty()) {
                break;
            }
        }
        assert!(buffer.len() <= UNDECIDED_MAX, "{} bytes left over", buffer.len());
    }
    Outcome { sent, fault, octets: transcoder.content_octets(), rest: None }
}

/// Content as a strict server reads it, which knows CRLF only, and fails on what a lenient one could take for an end.
fn decoded(text: &[u8], dots: bool) -> Vec<u8> {
    let mut content = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let words = line.strip_suffix(b"\r\n").or((!line.ends_with(b"\n")).then_some(line));
        let words = words.unwrap_or_else(|| panic!("bare LF in `{}`", text.escape_ascii()));
        assert!(!words.contains(&b'\r'), "bare CR in `{}`", text.escape_ascii());
        assert!(!dots || words != b".", "an end inside `{}`", text.escape_ascii());
        content.extend_from_slice(if dots { line.strip_prefix(b".").unwrap_or(line) } else { line });
    }
    content
}

/// Content as the client meant it, a byte at a time: every newline is one, and a dot is stuffed behind CRLF only.
fn meant(stream: &[u8], framing: Framing) -> Vec<u8> {
    let (mut content, mut at, mut strict) = (Vec::new(), 0, true);
    while at < stream.len() {
        let dots = framing == Framing::Dots && strict;
        if dots && stream[at..].starts_with(b".\r\n") {
            break;
        }
        if dots && stream[at] == b'.' {
            at += 1;
        }
        strict = false;
        while let Some(&byte) = stream.get(at) {
            at += 1;
            if !b"\r\n".contains(&byte) {
                content.push(byte);
                continue;
            }
            let behind = match &stream[at - 1..] {
                [b'\r', b'\n', ..] => 1,
                [b'\r', b'\r', b'\n', ..] => 2,
                _ => 0,
            };
            strict = behind > 0;
            at += behind;
            content.extend_from_slice(b"\r\n");
            break;
        }
    }
    content
}

/// A header says the same however it is packed, keeps little, and is over where a naive reader finds its end.
pub(super) fn header(data: &[u8]) {
    let mut bytes = Bytes(data);
    let bound = usize::from(bytes.byte()) * 16;
    let keeps = bytes.pick(&[Keeps::Names, Keeps::Nothing]);
    let cuts = bytes.cuts();
    let message = bytes.0;
    let whole = read_header(&[message], keeps, bound);
    assert_eq!(whole, read_header(&pieces(message, &cuts), keeps, bound));
    let Some(facts) = whole else { return };
    let lines = message.split(|&byte| byte == b'\n').filter(|line| line.to_ascii_lowercase().starts_with(b"received"));
    assert!(facts.received_hops <= lines.count());
    for shown in facts.message_id.iter().chain(&facts.from) {
        assert!(keeps == Keeps::Names && !shown.chars().any(char::is_control), "{shown:?}");
    }
}

fn read_header(pieces: &[&[u8]], keeps: Keeps, bound: usize) -> Option<HeaderFacts> {
    let mut scan = HeaderScan::new(keeps);
    for piece in pieces {
        match scan.feed(piece, bound) {
            HeaderVerdict::NeedMore => {}
            HeaderVerdict::Done(facts) => return Some(facts),
            HeaderVerdict::TooLarge => return None,
        }
    }
    Some(scan.finish())
}
