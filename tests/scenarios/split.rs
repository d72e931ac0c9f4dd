//! However bytes are packed, the same is said and done; and whatever bytes come, nothing panics and nothing grows without
//! bound.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use smtp_gateway::session::MessageOutcome;
use tests::dialog::Packets;
use tests::dialog::model::Answer;
use tests::dialog::play::Play;
use tests::dialog::stage::Stage;

/// What a client may say, one piece of it. What stands together in a segment comes before the backend answers.
const WORDS: [&str; 48] = [
    "EHLO client.example\r\n",
    "EHLO client.example\r\n",
    "HELO client.example\r\n",
    "MAIL FROM:<a@client.example>\r\n",
    "MAIL FROM:<a@client.example>\r\n",
    "MAIL FROM:<>\r\nRCPT TO:<user@local.test>\r\n",
    "MAIL FROM:<>\r\nRCPT TO:<user@local.test>\r\n",
    "MAIL FROM:<> SIZE=100 BODY=8BITMIME\r\n",
    "MAIL FROM:<\u{fc}@client.example> SMTPUTF8\r\n",
    "RCPT TO:<user@local.test>\r\n",
    "RCPT TO:<user@local.test>\r\n",
    "RCPT TO:<other@local.test> NOTIFY=NEVER\r\n",
    "RCPT TO:<user@foreign.example>\r\n",
    "RCPT TO:<user%foreign.example@local.test>\r\n",
    "RCPT TO:<us\0er@local.test>\r\n",
    "RCPT TO:<user@local.test>\nRCPT TO:<user@local.test>\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "BDAT 5\r\nx\r\n.\r",
    "BDAT 8 LAST\r\nx\r\n.\r\nQU",
    "BDAT 8 LAST\r\nab\r\ncd\r\n",
    "BDAT 0\r\n",
    "BDAT 0 LAST\r\n",
    "BDAT x\r\n",
    "BDAT 40 LAST\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "VRFY user\r\n",
    "QUIT\r\n",
    "XCLIENT ADDR=127.0.0.1\r\n",
    "STARTTLS\r\n",
    "bogus\r\n",
    "\r\n",
    "Subject: x\r\n\r\n",
    "Received: a\r\nReceived: b\r\n",
    " continued\r\n",
    "BDAT 12 LAST\r\n\tfolded\r\n\r\n",
    "x\r\n.\r\n",
    "x\r\n.\r\n",
    "\r\n.\r\n",
    ".\r\n",
    "..\r\n.x\r\n",
    "x\n.\n",
    "x\r.\r\n",
    "\r\n.\n",
    "\r",
    "a line that is longer than the others are\r\n",
];

fn segment() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        12 => proptest::sample::select(WORDS.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
        1 => "[.\r\nx]{0,6}".prop_map(String::into_bytes),
        1 => (1usize..3000).prop_map(|length| vec![b'y'; length]),
    ];
    vec(word, 1..6).prop_map(|words| words.concat())
}

/// A whole message, in DATA or in chunks, with something odd in it.
fn message() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let content = prop_oneof![
        2 => proptest::sample::select(WORDS.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        2 => "(x|\\.|\r\n|\r\n\\.|Received: a\r\n){0,8}".prop_map(String::into_bytes),
        1 => "[.\r\nx]{0,12}".prop_map(String::into_bytes),
    ];
    let envelope = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<user@local.test>\r\n".to_vec();
    let chunk = |content: &[u8], last: &str| [format!("BDAT {}{last}\r\n", content.len()).as_bytes(), content].concat();
    (vec(content, 1..4), 0..4).prop_map(move |(contents, how)| {
        let content = contents.concat();
        let body = [content.as_slice(), b"\r\n.\r\n"].concat();
        match how {
            0 => vec![envelope.clone(), b"DATA\r\n".to_vec(), body],
            1 => vec![[envelope.as_slice(), b"DATA\r\n"].concat(), [body.as_slice(), b"NOOP\r\n"].concat()],
            2 => vec![envelope.clone(), [chunk(&content, ""), chunk(&content, " LAST")].concat()],
            _ => {
                let chunks: Vec<u8> = contents.iter().flat_map(|content| chunk(content, "")).collect();
                vec![[envelope.as_slice(), &chunks, b"BDAT 0 LAST\r\nNOOP\r\n"].concat()]
            }
        }
    })
}

/// What a client says in one session, segment by segment.
fn script() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = prop_oneof![2 => segment().prop_map(|segment| vec![segment]), 3 => message()];
    vec(part, 1..7).prop_map(|parts| {
        let opening = vec![b"EHLO client.example\r\n".to_vec()];
        std::iter::once(opening).chain(parts).flatten().collect()
    })
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = prop_oneof![
        30 => Just(Answer::Yes),
        4 => Just(Answer::YesAtLength),
        3 => Just(Answer::No),
        2 => Just(Answer::Later),
        1 => Just(Answer::Closing),
        1 => Just(Answer::Junk),
        1 => Just(Answer::Close),
    ];
    vec(answer, 0..20)
}

fn settings() -> impl Strategy<Value = HashMap<String, String>> {
    let choice = |values: &'static [&'static str]| proptest::sample::select(values.to_vec());
    let offers =
        choice(&["PIPELINING,CHUNKING,SIZE,8BITMIME,SMTPUTF8,DSN", "PIPELINING", "CHUNKING,8BITMIME", "SIZE 1000"]);
    (
        choice(&["reject", "normalize"]),
        choice(&["reject", "log"]),
        choice(&["none", "xclient", "trace-header"]),
        choice(&["20", "65536"]),
        choice(&["30", "262144"]),
        choice(&["60", "1000", "100000"]),
        choice(&["3", "100"]),
        choice(&["1", "3"]),
        offers,
    )
        .prop_map(|(newline, early, identity, text_line, header, size, errors, servers, offers)| {
            [
                ("bare_newline", newline),
                ("early_talk", early),
                ("identity", identity),
                ("text_line", text_line),
                ("header_size", header),
                ("message_size", size),
                ("received_hops", "1"),
                ("errors", errors),
                ("servers", servers),
                ("backend_offers", offers),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
        })
}

/// What may happen to a session.
#[derive(Debug, Clone)]
enum Event {
    Client(Vec<u8>),
    Backend(Vec<u8>),
    BackendCloses,
    ClientBreaks,
    Seconds(u64, bool),
    Drain,
    DrainNow,
}

fn event() -> impl Strategy<Value = Event> {
    let replies = [
        "220 backend\r\n",
        "250-backend\r\n250-XCLIENT ADDR\r\n250 PIPELINING\r\n",
        "250-backend\r\n250-CHUNKING\r\n250 PIPELINING\r\n",
        "250 Ok\r\n",
        "250 Ok\r\n",
        "354 go on\r\n",
        "354 go on\r\n",
        "550 no\r\n",
        "451 later\r\n",
        "421 closing\r\n",
        "250-half",
        "junk\r\n",
    ];
    let reply = proptest::sample::select(replies.to_vec()).prop_map(|reply| reply.as_bytes().to_vec());
    let bytes = prop_oneof![20 => reply, 1 => vec(any::<u8>(), 0..20)];
    prop_oneof![
        20 => segment().prop_map(Event::Client),
        5 => message().prop_map(|segments| Event::Client(segments.concat())),
        40 => bytes.prop_map(Event::Backend),
        1 => Just(Event::BackendCloses),
        1 => Just(Event::ClientBreaks),
        2 => (0u64..400, any::<bool>()).prop_map(|(seconds, stalled)| Event::Seconds(seconds, stalled)),
        1 => Just(Event::Drain),
        1 => Just(Event::DrainNow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn any_split_says_and_does_the_same(
        settings in settings(),
        segments in script(),
        answers in answers(),
        cuts in vec(1usize..40, 1..8),
    ) {
        let (whole, model, stage) = Play::run(&settings, &segments, &answers, &[]);
        let (split, ..) = Play::run(&settings, &segments, &answers, &cuts);
        prop_assert_eq!(&whole, &split);
        let (bytes, ..) = Play::run(&settings, &segments, &answers, &[1]);
        prop_assert_eq!(&whole, &bytes);

        let accepted = stage.reports.iter().filter(|report| report.outcome == MessageOutcome::Accepted).count();
        prop_assert!(accepted <= model.accepted, "{accepted} acknowledged, {} accepted", model.accepted);
        for line in whole.client.split_inclusive("\r\n") {
            let code = line.as_bytes().first_chunk::<3>().is_some_and(|code| code.iter().all(u8::is_ascii_digit));
            prop_assert!(line.ends_with("\r\n") && code, "the client received {line:?}");
        }
    }

    #[test]
    fn nothing_panics_and_nothing_grows_whatever_comes(settings in settings(), events in vec(event(), 1..60)) {
        let mut stage = Stage::new(&settings, Packets::Whole).unwrap();
        let (mut from_client, mut from_backend) = (0, 0);
        for event in events {
            match event {
                Event::Client(bytes) => {
                    from_client += bytes.len();
                    stage.client_sends(&bytes);
                }
                Event::Backend(bytes) => {
                    from_backend += bytes.len();
                    stage.backend_sends(&bytes);
                }
                Event::BackendCloses => stage.backend_closes(),
                Event::ClientBreaks => stage.client_breaks(),
                Event::Seconds(seconds, stalled) => stage.time_passes(seconds, stalled),
                Event::Drain => stage.drain(),
                Event::DrainNow => stage.drain_now(),
            }
            // A reply is at most as long as a refusal of the backend's for each of the replies owed, or as EHLO's for each line.
            prop_assert!(stage.to_client.len() <= 1000 + 200 * from_client + 130 * from_backend);
            // What is sent on is at most twice what came (bare newlines, stuffed dots), and the gateway's own words.
            prop_assert!(stage.to_backend.len() <= 1000 + 4 * from_client + 200 * from_backend);
            if stage.dialling {
                let to_client = std::mem::take(&mut stage.to_client);
                let to_backend = std::mem::take(&mut stage.to_backend);
                (stage.backend_closed, stage.client_closed) = (false, false);
                stage.dialled("").unwrap();
                stage.to_client.splice(0..0, to_client);
                stage.to_backend.splice(0..0, to_backend);
            }
        }
    }
}

/// A chunk of text grows while its newlines are mended: it may become too large, and hold an attempt to smuggle before or
/// behind that point. Which of the two it is refused for is decided by which comes first, and not by the packets.
#[test]
fn what_a_long_chunk_is_refused_for_does_not_depend_on_packets() {
    let attempt = b"x\n.\nMAIL FROM:<b@c.example>\r\n".to_vec();
    let settings: HashMap<String, String> =
        [("message_size", "3000"), ("backend_offers", "CHUNKING,8BITMIME,PIPELINING")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    let mut attempts = Vec::new();
    for before in (1400..1600).step_by(20) {
        let mut content = vec![b'\n'; before];
        content.extend_from_slice(&attempt);
        content.resize(3000, b'y');
        // The backend is there before the chunk, so that each piece is taken as it comes.
        let envelope = b"MAIL FROM:<a@client.example>\r\nRCPT TO:<user@local.test>\r\n".to_vec();
        let chunk = [b"BDAT 3000 LAST\r\n", content.as_slice()].concat();
        let segments = [b"EHLO client.example\r\n".to_vec(), envelope, chunk];
        let (whole, ..) = Play::run(&settings, &segments, &[], &[]);
        for cut in [1, 7, 100, 1000, 1499, 1501, 1520, 1600] {
            let (split, ..) = Play::run(&settings, &segments, &[], &[cut]);
            assert_eq!(whole, split, "{before} newlines, then an attempt, in pieces of {cut}");
        }
        attempts.push(whole.client.contains("550 5.6.0"));
    }
    assert!(attempts.contains(&true) && attempts.contains(&false), "{attempts:?}");
}
