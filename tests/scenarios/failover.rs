//! A backend of several servers loses the one that a session has, at every point of the session and in every way: as long as
//! nothing of the message has left, the client hears what it would have heard without, and the message arrives once.

use std::collections::HashMap;

use smtp_gateway::session::MessageOutcome;
use tests::dialog::model::{Answer, Heard};
use tests::dialog::play::{Outcome, Play};
use tests::dialog::stage::Stage;

/// How a server is lost.
const LOSSES: [Answer; 3] = [Answer::Closing, Answer::Junk, Answer::Close];

/// Answers of a whole session with [`scripts`]: MAIL, three RCPTs, DATA, the end of data.
const COURSE: [Answer; 6] = [Answer::Yes, Answer::Yes, Answer::No, Answer::Yes, Answer::Yes, Answer::Yes];
/// How many of them come before the message.
const BEFORE_MESSAGE: usize = 5;

/// The same session in step, in groups, and all at once.
fn scripts() -> Vec<Vec<Vec<u8>>> {
    let lines = [
        "MAIL FROM:<a@client.example>\r\n",
        "RCPT TO:<one@local.test>\r\n",
        "RCPT TO:<none@local.test>\r\n",
        "RCPT TO:<two@local.test>\r\n",
        "DATA\r\n",
    ];
    let message = "Subject: x\r\n\r\nbody\r\n.\r\n";
    let segments = |groups: &[&[&str]]| {
        let groups = groups.iter().map(|group| group.concat().into_bytes());
        let ends = ["EHLO client.example\r\n", message, "QUIT\r\n"].map(|text| text.as_bytes().to_vec());
        let [hello, message, quit] = ends;
        std::iter::once(hello).chain(groups).chain([message, quit]).collect()
    };
    vec![
        segments(&[&lines[..1], &lines[1..2], &lines[2..3], &lines[3..4], &lines[4..]]),
        segments(&[&lines[..1], &lines[1..4], &lines[4..]]),
        segments(&[&lines[..2], &lines[2..]]),
        segments(&[&lines]),
    ]
}

fn play(servers: &str, hello: &str, segments: &[Vec<u8>], answers: &[Answer]) -> (Outcome, usize, Stage) {
    let settings: HashMap<String, String> =
        [("servers", servers), ("identity", "xclient"), ("backend_offers", "PIPELINING,8BITMIME")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    let mut segments = segments.to_vec();
    segments[0] = format!("{hello} client.example\r\n").into_bytes();
    let (outcome, model, stage) = Play::run(&settings, &segments, answers, &[]);
    (outcome, model.accepted, stage)
}

/// What the last connection heard of the transaction.
fn heard_last(outcome: &Outcome) -> Vec<&Heard> {
    let is_envelope = |heard: &&Heard| match heard {
        Heard::Command(line) => ["MAIL", "RCPT", "DATA"].iter().any(|verb| line.starts_with(verb)),
        Heard::Message(_) | Heard::Chunks(_) => true,
        Heard::Connection => false,
    };
    let last = outcome.heard.iter().rposition(|heard| *heard == Heard::Connection).unwrap();
    outcome.heard[last..].iter().filter(is_envelope).collect()
}

#[test]
fn the_client_hears_nothing_of_a_server_that_is_lost_before_the_message() {
    for hello in ["EHLO", "HELO"] {
        for segments in scripts() {
            let (undisturbed, ..) = play("1", hello, &segments, &COURSE);
            for (point, loss) in (0..BEFORE_MESSAGE).flat_map(|point| LOSSES.map(|loss| (point, loss))) {
                let mut answers = COURSE[..point].to_vec();
                answers.push(loss);
                // What was answered is asked again where it was taken, and then what is left.
                let replayed = COURSE[..point].iter().filter(|answer| **answer == Answer::Yes).count();
                answers.extend(std::iter::repeat_n(Answer::Yes, replayed));
                answers.extend_from_slice(&COURSE[point..]);
                let (outcome, accepted, _) = play("2", hello, &segments, &answers);
                let case = format!("{hello}, {} segments, {loss:?} at {point}: {outcome:#?}", segments.len());
                assert_eq!(outcome.client, undisturbed.client, "{case}");
                assert_eq!(accepted, 1, "{case}");
                let refused = usize::from(point <= 2);
                assert_eq!(heard_last(&outcome).len(), 5 + refused, "the envelope and the message, once: {case}");
            }
        }
    }
}

#[test]
fn what_another_server_takes_less_of_is_acknowledged_to_nobody() {
    for refusal in [Answer::No, Answer::Later, Answer::Junk, Answer::Close] {
        for segments in scripts() {
            for point in 1..BEFORE_MESSAGE {
                let replayed = COURSE[..point].iter().filter(|answer| **answer == Answer::Yes).count();
                for refused in 0..replayed {
                    let mut answers = COURSE[..point].to_vec();
                    answers.push(Answer::Close);
                    answers.extend(std::iter::repeat_n(Answer::Yes, refused));
                    answers.push(refusal);
                    let (outcome, accepted, stage) = play("2", "EHLO", &segments, &answers);
                    let case = format!("{} segments, {refusal:?} to {refused}, lost at {point}", segments.len());
                    let acknowledged =
                        stage.reports.iter().filter(|report| report.outcome == MessageOutcome::Accepted).count();
                    assert_eq!(acknowledged, accepted, "{case}: {outcome:#?}");
                    let taken_up = matches!(refusal, Answer::Junk | Answer::Close);
                    assert_eq!(accepted, usize::from(taken_up), "{case}: {outcome:#?}");
                    // A third server's answers are the client's; else it is told to come again, and is in step to its QUIT.
                    let told = if taken_up { "250 yes" } else { "451 4.4.2" };
                    assert!(outcome.client.contains(told), "{case}: {outcome:#?}");
                    assert!(taken_up || outcome.client.ends_with("221 2.0.0 Bye\r\n"), "{case}: {outcome:#?}");
                }
            }
        }
    }
}

#[test]
fn a_message_of_which_something_has_left_goes_to_nobody_else() {
    for loss in LOSSES {
        for segments in scripts() {
            let answers = [&COURSE[..BEFORE_MESSAGE], &[loss]].concat();
            let (outcome, accepted, stage) = play("3", "EHLO", &segments, &answers);
            assert_eq!(accepted, 0, "{outcome:#?}");
            let messages = outcome.heard.iter().filter(|heard| matches!(heard, Heard::Message(_))).count();
            assert_eq!(messages, 1, "{outcome:#?}");
            assert!(stage.reports.iter().all(|report| report.outcome == MessageOutcome::Deferred), "{outcome:#?}");
        }
    }
}
