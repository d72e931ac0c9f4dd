use memchr::memmem;
use proptest::prelude::*;

use super::*;

const REJECT: BodyRules = BodyRules { line_max: Some(1000), bare_newline: BareNewlineRule::Reject };
const NORMALIZE: BodyRules = BodyRules { line_max: None, bare_newline: BareNewlineRule::Normalize };

/// What became of a stream: output, first fault, whether it proved to be an attempt, and what was left behind the end of
/// data (`None`: no end).
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    output: Vec<u8>,
    fault: Option<BodyFault>,
    attempt: bool,
    rest: Option<Vec<u8>>,
}

/// Feeds the stream in pieces, as a driver does.
fn transcode(pieces: &[&[u8]], rules: &BodyRules) -> Outcome {
    let mut transcoder = BodyTranscoder::new(Framing::Dots);
    let mut buffer = Vec::new();
    let mut outcome = Outcome { output: Vec::new(), fault: None, attempt: false, rest: None };
    for (index, piece) in pieces.iter().enumerate() {
        buffer.extend_from_slice(piece);
        loop {
            let step = transcoder.step(&mut buffer, rules, &mut outcome.output);
            outcome.output.extend_from_slice(&buffer[step.forward()]);
            outcome.fault = outcome.fault.or(step.fault);
            outcome.attempt |= step.fault == Some(BodyFault::Smuggling);
            buffer.drain(..step.used);
            if step.ends() {
                buffer.extend(pieces[index + 1..].concat());
                return Outcome { rest: Some(buffer), ..outcome };
            }
            if step.used == 0 {
                break;
            }
        }
        assert!(buffer.len() <= UNDECIDED_MAX, "{} bytes left over", buffer.len());
    }
    outcome
}

/// The same for a counted message, which ends with the last piece.
fn transcode_octets(pieces: &[&[u8]], rules: &BodyRules) -> Outcome {
    let mut transcoder = BodyTranscoder::new(Framing::Octets);
    let mut buffer = Vec::new();
    let mut outcome = Outcome { output: Vec::new(), fault: None, attempt: false, rest: None };
    for (index, piece) in pieces.iter().enumerate() {
        buffer.extend_from_slice(piece);
        let last = index + 1 == pieces.len();
        loop {
            let step = if last {
                transcoder.last_step(&mut buffer, rules, &mut outcome.output)
            } else {
                transcoder.step(&mut buffer, rules, &mut outcome.output)
            };
            outcome.output.extend_from_slice(&buffer[step.forward()]);
            outcome.fault = outcome.fault.or(step.fault);
            outcome.attempt |= step.fault == Some(BodyFault::Smuggling);
            buffer.drain(..step.used);
            if buffer.is_empty() || (step.used == 0 && !last) {
                break;
            }
        }
    }
    Outcome { rest: Some(buffer), ..outcome }
}

/// The rules, one byte at a time, for a stream that is all there.
fn reference(stream: &[u8], rules: &BodyRules, framing: Framing) -> Outcome {
    let dots = framing == Framing::Dots;
    let (mut output, mut fault, mut attempt, mut at) = (Vec::new(), None, false, 0);
    // The newline before this line, and the line before that one: whether each is a CRLF.
    let mut strict_before = true;
    let mut rest = None;
    while at < stream.len() {
        if dots && strict_before && stream[at..].starts_with(b".\r\n") {
            rest = Some(stream[at + 3..].to_vec());
            output.extend(b".\r\n");
            break;
        }
        let length = stream[at..].iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(stream.len() - at);
        let line = &stream[at..at + length];
        let content = if dots && strict_before { line.strip_prefix(b".").unwrap_or(line) } else { line };
        if dots && content.starts_with(b".") {
            output.push(b'.');
        }
        output.extend(content);
        at += length;
        let newline = &stream[at..];
        let (width, strict, kind) = match newline {
            [] => break,
            [b'\r', b'\n', ..] => (2, true, None),
            [b'\r', b'\r', b'\n', ..] => (3, true, Some(BodyFault::BareCr)),
            [b'\r', ..] => (1, false, Some(BodyFault::BareCr)),
            [..] => (1, false, Some(BodyFault::BareLf)),
        };
        output.extend(b"\r\n");
        at += width;
        if rules.bare_newline == BareNewlineRule::Reject {
            fault = fault.or(kind);
        }
        let look_alike = line == b"." && (!strict_before || kind.is_some());
        strict_before = strict;
        if look_alike && smuggling::command(&stream[at..]) == smuggling::Command::Yes {
            attempt = true;
            fault = fault.or(Some(BodyFault::Smuggling));
            // From here on only the end matters.
            let from = at - if strict { 2 } else { 0 };
            let end = memmem::find(&stream[from..], b"\r\n.\r\n");
            rest = end.filter(|_| dots).map(|end| stream[from + end + 5..].to_vec());
            break;
        }
    }
    if !dots {
        rest = Some(Vec::new());
    }
    Outcome { output, fault, attempt, rest }
}

fn split(stream: &[u8], cuts: Vec<usize>) -> Vec<&[u8]> {
    let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect()
}

#[test]
fn lines_are_as_long_as_they_came_however_they_are_packed() {
    let rules = BodyRules { line_max: Some(8), bare_newline: BareNewlineRule::Normalize };
    let streams: [(&[u8], bool); 5] = [
        (b".x\r\n.y\r\n.b34\r6\r\n.\r\n", false),
        (b".x\r\n.y\r\n.z\r\n.b3456\r\n.\r\n", false),
        (b".b34567\r\n.\r\n", true),
        (b"x\r\n..b34567\r\n.\r\n", true),
        (b".x\r\n.b34567\r\n.\r\n", true),
    ];
    for (stream, too_long) in streams {
        for length in 1..=stream.len() {
            let outcome = transcode(&stream.chunks(length).collect::<Vec<_>>(), &rules);
            let fault = too_long.then_some(BodyFault::LineTooLong);
            assert_eq!(outcome.fault, fault, "{} by {length}", stream.escape_ascii());
        }
    }
}

/// What some servers have taken for the end of data, and whether a bare newline is in it.
const LOOK_ALIKES: [(&[u8], bool); 17] = [
    (b"\n.\n", true),
    (b"\n.\r\n", true),
    (b"\r\n.\n", true),
    (b"\n\n.\r\n", true),
    (b"\n.\r", true),
    (b"\r.\n", true),
    (b"\r.\r", true),
    (b"\r.\r\n", true),
    (b"\r\n.\r", true),
    (b"\r\n.\r\r\n", true),
    (b"\r\r\n.\r\r\n", true),
    (b"\r\n\0.\r\n", false),
    (b"\r\n.\0\r\n", false),
    (b"\r\n\0.\n", true),
    (b"\r\n.\x0b\r\n", false),
    (b"\r\n. \r\n", false),
    (b"\r\n.\xe2\x80\xa8", false),
];

#[test]
fn only_crlf_dot_crlf_ends_data() {
    for (look_alike, bare) in LOOK_ALIKES {
        for behind in [b"NOOP\r\n".as_slice(), b"text\r\n"] {
            let stream = [b"body", look_alike, behind, b"\r\n.\r\nQUIT\r\n"].concat();
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            for rules in [REJECT, NORMALIZE] {
                for pieces in [&[stream.as_slice()][..], &bytes] {
                    let outcome = transcode(pieces, &rules);
                    assert_eq!(outcome.rest.as_deref(), Some(b"QUIT\r\n".as_slice()), "{look_alike:?}");
                    let sent_end = memmem::find(&outcome.output, b"\r\n.\r\n").map(|at| at + 5);
                    assert!(outcome.fault.is_some() || sent_end == Some(outcome.output.len()), "{look_alike:?}");
                    // A dot and a NUL make no line of a dot alone for anybody who takes LF for a newline.
                    let attempt = bare && behind == b"NOOP\r\n" && look_alike != b"\r\n\0.\n";
                    assert_eq!(outcome.attempt, attempt, "{look_alike:?} {rules:?}");
                    let refused = attempt || (bare && rules == REJECT);
                    assert_eq!(outcome.fault.is_some(), refused, "{look_alike:?} {rules:?}");
                }
            }
        }
    }
}

#[test]
fn an_attempt_in_a_counted_message() {
    for (look_alike, bare) in LOOK_ALIKES {
        let stream = [b"body", look_alike, b"MAIL FROM:<a@b.example>\r\n"].concat();
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        for pieces in [&[stream.as_slice()][..], &bytes] {
            let outcome = transcode_octets(pieces, &NORMALIZE);
            assert_eq!(outcome.attempt, bare && look_alike != b"\r\n\0.\n", "{look_alike:?}");
        }
    }
    let honest = b"a list of dots:\r\n.\r\nMAIL FROM:<a@b.example> is a command\r\n";
    assert_eq!(transcode_octets(&[honest], &REJECT).output, honest);
}

#[test]
fn newlines_of_every_kind_become_crlf() {
    for (input, output) in [
        ("a\nb\r\n", "a\r\nb\r\n"),
        ("Subject: a\rb\r\n\r\n", "Subject: a\r\nb\r\n\r\n"),
        ("From: a\r\r\nTo: b\r\r\n\r\r\ntext\r\r\n", "From: a\r\nTo: b\r\n\r\ntext\r\n"),
        ("a\r\r\r\nb\r\n", "a\r\n\r\nb\r\n"),
        ("a\n\rb\r\n", "a\r\n\r\nb\r\n"),
        ("\nb\r\n", "\r\nb\r\n"),
        ("a\n.\nb\r\n", "a\r\n..\r\nb\r\n"),
    ] {
        let stream = format!("{input}.\r\n");
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        for pieces in [&[stream.as_bytes()][..], &bytes] {
            let outcome = transcode(pieces, &NORMALIZE);
            assert_eq!(String::from_utf8_lossy(&outcome.output), format!("{output}.\r\n"), "{input:?}");
            assert_eq!((outcome.fault, outcome.rest), (None, Some(Vec::new())), "{input:?}");
        }
        let counted = transcode_octets(&[input.as_bytes()], &NORMALIZE);
        assert_eq!(String::from_utf8_lossy(&counted.output), output.replace("..", "."), "{input:?}");
    }
    assert_eq!(transcode_octets(&[b"a\r"], &NORMALIZE).output, b"a\r\n");
    assert_eq!(transcode_octets(&[b"a\r", b"\r"], &NORMALIZE).output, b"a\r\n\r\n");
}

#[test]
fn a_client_that_waits_in_vain_is_seen() {
    let seems_over = |stream: &[u8]| {
        let mut transcoder = BodyTranscoder::new(Framing::Dots);
        let mut buffer = stream.to_vec();
        loop {
            let step = transcoder.step(&mut buffer, &NORMALIZE, &mut Vec::new());
            buffer.drain(..step.used);
            if step.used == 0 || buffer.is_empty() {
                return transcoder.seems_over();
            }
        }
    };
    for stream in ["Subject: x\n\ntext\n.\n", "text\r.\r", "text\r\n.\n", "text\n.\r\n", ".\n"] {
        assert!(seems_over(stream.as_bytes()), "over: {stream:?}");
    }
    for stream in ["text\n", "text\n.", "text\r\n.\r", "text\r\n.", "text\n.\nmore", "text"] {
        assert!(!seems_over(stream.as_bytes()), "{stream:?}");
    }
}

#[test]
fn a_true_end_after_a_stray_cr() {
    let outcome = transcode(&[b"body\r\r\n.\r\nNOOP\r\n"], &REJECT);
    let expected = (Some(BodyFault::BareCr), Some(b"NOOP\r\n".as_slice()));
    assert_eq!((outcome.fault, outcome.rest.as_deref()), expected);
}

#[test]
fn dots_are_stuffed_by_our_own_rule() {
    for (input, output) in [
        ("..a\r\n.\r\n", "..a\r\n.\r\n"),
        (".a\r\n.\r\n", "a\r\n.\r\n"),
        ("a\r\n.b\r\n..c\r\n. \r\n...\r\n.\r\n", "a\r\nb\r\n..c\r\n \r\n...\r\n.\r\n"),
        (".\r\n", ".\r\n"),
        ("\r\n.\r\n", "\r\n.\r\n"),
    ] {
        let outcome = transcode(&[input.as_bytes()], &REJECT);
        assert_eq!(String::from_utf8_lossy(&outcome.output), output, "{input:?}");
    }
    assert_eq!(transcode(&[b"a\n.\n..b\r\n.\r\n"], &NORMALIZE).output, b"a\r\n..\r\n...b\r\n.\r\n");
}

#[test]
fn lines_are_measured_across_chunks() {
    let options = BodyRules { line_max: Some(10), ..REJECT };
    for (line, faulty) in [("12345678\r\n", false), ("123456789\r\n", true)] {
        let stream = format!("{line}{line}.\r\n");
        for size in 1..stream.len() {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let outcome = transcode(&pieces, &options);
            assert_eq!((outcome.fault.is_some(), outcome.rest.is_some()), (faulty, true), "{line:?} by {size}");
        }
    }
}

#[test]
fn content_is_counted_without_stuffing() {
    let mut transcoder = BodyTranscoder::new(Framing::Dots);
    transcoder.step(&mut b"..a\r\nb\r\n.\r\n".to_vec(), &REJECT, &mut Vec::new());
    assert_eq!(transcoder.content_octets(), 7);
}

proptest! {
    #[test]
    fn any_split_agrees_with_the_rules(
        stream in "([a.\r\n\0]|\n\\.\n|\r\n|NOOP\r){0,40}(\r\n\\.\r\n)?[a.\r\n]{0,6}",
        cuts in proptest::collection::vec(0usize..50, 0..8),
        normalize: bool,
    ) {
        let stream = stream.as_bytes();
        let options = if normalize { NORMALIZE } else { REJECT };
        let pieces = split(stream, cuts);
        let expected = reference(stream, &options, Framing::Dots);
        let found = transcode(&pieces, &options);
        prop_assert_eq!(&found.rest, &expected.rest);
        if expected.rest.is_some() {
            prop_assert_eq!(found.fault, expected.fault);
            prop_assert_eq!(found.attempt, expected.attempt);
            if expected.fault.is_none() {
                prop_assert_eq!(String::from_utf8_lossy(&found.output), String::from_utf8_lossy(&expected.output));
            }
        }
    }

    #[test]
    fn any_split_of_counted_octets_agrees_with_the_rules(
        stream in "([a.\r\n\0]|\n\\.\n|\r\n|NOOP\r){0,40}",
        cuts in proptest::collection::vec(0usize..50, 0..8),
        normalize: bool,
    ) {
        let stream = stream.as_bytes();
        let rules = if normalize { NORMALIZE } else { REJECT };
        let expected = reference(stream, &rules, Framing::Octets);
        let found = transcode_octets(&split(stream, cuts), &rules);
        prop_assert_eq!((found.fault, found.attempt), (expected.fault, expected.attempt));
        if expected.fault.is_none() {
            prop_assert_eq!(String::from_utf8_lossy(&found.output), String::from_utf8_lossy(&expected.output));
        }
    }

    #[test]
    fn long_content_agrees_with_the_rules(
        lines in proptest::collection::vec("(\\.{0,3}[a-z]{0,90}\r\n){1,4}|\\.\n|[a-z]{0,300}", 0..20),
        cut in 0usize..3000,
    ) {
        let stream = [lines.concat().as_bytes(), b"\r\n.\r\n"].concat();
        let (head, tail) = stream.split_at(cut.min(stream.len()));
        let expected = reference(&stream, &NORMALIZE, Framing::Dots);
        prop_assert_eq!(transcode(&[&stream], &NORMALIZE), expected);
        prop_assert_eq!(transcode(&[&stream], &NORMALIZE), transcode(&[head, tail], &NORMALIZE));
    }

    #[test]
    fn any_split_shows_the_same_fault_and_sends_on_the_same(
        stream in "[a.\r\n]{0,40}(\r\n\\.\r\n)?",
        cuts in proptest::collection::vec(0usize..50, 0..8),
        text_line_max in 3usize..12,
        normalize: bool,
    ) {
        let stream = stream.as_bytes();
        let options = BodyRules { line_max: Some(text_line_max), ..if normalize { NORMALIZE } else { REJECT } };
        prop_assert_eq!(transcode(&[stream], &options), transcode(&split(stream, cuts), &options));
    }

    #[test]
    fn nothing_bare_is_ever_sent_on(stream in "[a.\r\n]{0,40}", cut in 0usize..40, normalize: bool) {
        let stream = stream.as_bytes();
        let (head, tail) = stream.split_at(cut.min(stream.len()));
        let output = transcode(&[head, tail], if normalize { &NORMALIZE } else { &REJECT }).output;
        let strict = String::from_utf8_lossy(&output).replace("\r\n", "");
        prop_assert!(!strict.contains(['\r', '\n']), "{:?}", strict);
    }
}
