use proptest::prelude::*;

use super::*;

const REJECT: DataOptions = DataOptions { text_line_max: 1000, bare_newline: BareNewlineRule::Reject };
const NORMALIZE: DataOptions = DataOptions { text_line_max: 1000, bare_newline: BareNewlineRule::Normalize };

/// What became of a stream: output, fault, and what was left behind the end of data (`None`: no end).
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    output: Vec<u8>,
    fault: Option<DataFault>,
    rest: Option<Vec<u8>>,
}

/// Feeds the stream in pieces, as a driver does.
fn transcode(pieces: &[&[u8]], options: &DataOptions) -> Outcome {
    let mut transcoder = DataTranscoder::new();
    let (mut buffer, mut output, mut fault) = (Vec::new(), Vec::new(), None);
    for (index, piece) in pieces.iter().enumerate() {
        buffer.extend_from_slice(piece);
        loop {
            let step = transcoder.step(&mut buffer, options, &mut output);
            output.extend_from_slice(&buffer[step.forward.clone()]);
            fault = fault.or(step.fault);
            buffer.drain(..step.used);
            if step.end {
                buffer.extend(pieces[index + 1..].concat());
                return Outcome { output, fault, rest: Some(buffer) };
            }
            if step.used == 0 {
                break;
            }
        }
        assert!(buffer.len() <= 3, "more than three bytes left over");
    }
    Outcome { output, fault, rest: None }
}

/// The rules, one byte at a time, for a stream that is all there.
fn reference(stream: &[u8], options: &DataOptions) -> Outcome {
    let end = if stream.starts_with(b".\r\n") { Some(0) } else { memmem::find(stream, b"\r\n.\r\n").map(|at| at + 2) };
    let content = &stream[..end.unwrap_or(stream.len())];
    let (mut output, mut fault, mut at) = (Vec::new(), None, 0);
    let (mut strict, mut begins) = (true, true);
    while at < content.len() {
        if content[at..].starts_with(b"\r\n") {
            output.extend(b"\r\n");
            (strict, begins) = (true, true);
            at += 2;
            continue;
        }
        match content[at] {
            b'\r' | b'\n' => {
                fault = fault.or(Some(if content[at] == b'\r' { DataFault::BareCr } else { DataFault::BareLf }));
                output.extend(b"\r\n");
                (strict, begins) = (false, true);
            }
            b'.' if strict => strict = false,
            byte => {
                if byte == b'.' && begins {
                    output.push(b'.');
                }
                output.push(byte);
                (strict, begins) = (false, false);
            }
        }
        at += 1;
    }
    if end.is_some() {
        output.extend(b".\r\n");
    }
    let fault = fault.filter(|_| options.bare_newline == BareNewlineRule::Reject);
    Outcome { output, fault, rest: end.map(|at| stream[at + 3..].to_vec()) }
}

fn split(stream: &[u8], cuts: Vec<usize>) -> Vec<&[u8]> {
    let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect()
}

#[test]
fn only_crlf_dot_crlf_ends_data() {
    let look_alikes: [&[u8]; 17] = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\n\n.\r\n",
        b"\n.\r",
        b"\r.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n\0.\n",
        b"\r\n.\x0b\r\n",
        b"\r\n. \r\n",
        b"\r\n.\xe2\x80\xa8",
    ];
    for look_alike in look_alikes {
        let stream = [b"body", look_alike, b"NOOP\r\n", b"\r\n.\r\nQUIT\r\n"].concat();
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        for options in [REJECT, NORMALIZE] {
            for pieces in [&[stream.as_slice()][..], &bytes] {
                let outcome = transcode(pieces, &options);
                assert_eq!(outcome.rest.as_deref(), Some(b"QUIT\r\n".as_slice()), "{look_alike:?}");
                let sent_end = memmem::find(&outcome.output, b"\r\n.\r\n").map(|at| at + 5);
                assert!(outcome.fault.is_some() || sent_end == Some(outcome.output.len()), "{look_alike:?}");
            }
        }
    }
}

#[test]
fn a_true_end_after_a_stray_cr() {
    let outcome = transcode(&[b"body\r\r\n.\r\nNOOP\r\n"], &REJECT);
    let expected = (Some(DataFault::BareCr), Some(b"NOOP\r\n".as_slice()));
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
    let options = DataOptions { text_line_max: 10, ..REJECT };
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
    let mut transcoder = DataTranscoder::new();
    transcoder.step(&mut b"..a\r\nb\r\n.\r\n".to_vec(), &REJECT, &mut Vec::new());
    assert_eq!(transcoder.content_bytes(), 7);
}

proptest! {
    #[test]
    fn any_split_agrees_with_the_rules(
        stream in "[a.\r\n\0]{0,40}(\r\n\\.\r\n)?[a.\r\n]{0,6}",
        cuts in proptest::collection::vec(0usize..50, 0..8),
        normalize: bool,
    ) {
        let stream = stream.as_bytes();
        let options = if normalize { NORMALIZE } else { REJECT };
        let pieces = split(stream, cuts);
        let expected = reference(stream, &options);
        let found = transcode(&pieces, &options);
        prop_assert_eq!(&found.rest, &expected.rest);
        if expected.rest.is_some() {
            prop_assert_eq!(found.fault, expected.fault);
            if expected.fault.is_none() {
                prop_assert_eq!(String::from_utf8_lossy(&found.output), String::from_utf8_lossy(&expected.output));
            }
        }
    }

    #[test]
    fn any_split_shows_the_same_fault_and_sends_on_the_same(
        stream in "[a.\r\n]{0,40}(\r\n\\.\r\n)?",
        cuts in proptest::collection::vec(0usize..50, 0..8),
        text_line_max in 3usize..12,
        normalize: bool,
    ) {
        let stream = stream.as_bytes();
        let options = DataOptions { text_line_max, ..if normalize { NORMALIZE } else { REJECT } };
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
