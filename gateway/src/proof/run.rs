//! Puts one probe: its cases in few sessions, one after another, at a polite rate.
//!
//! A case is MAIL, RCPT, RSET. At level 2 an accepted foreign recipient is followed by DATA, and the connection is dropped
//! at 354; nothing is ever delivered by a case. What cannot be asked is lost with its reason, and a server that loses too
//! many in a row is left alone.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::smtp::ehlo::Extensions;

use super::answer::{CaseResult, Outcome, Stage};
use super::cases::{Case, Expect, Names};
use super::door::{Door, Opened};
use super::probe::{Greeting, Mark, ProbeKind, ProbeResult, Problem};
use super::talk::Talk;

/// Cases in one session: fewer errors than servers begin to slow down for.
const CASES_PER_SESSION: usize = 8;
/// Cases in a row that may be lost.
const LOST_MAX: usize = 3;
/// Cases that may be put off, if nothing else was heard before: who puts off everybody says no more to the rest.
const DEFERRED_MAX: usize = 6;
/// Relayed cases that settle the matter. Each one more costs the server (Postfix holds real mail back for a second once a
/// hundred transactions came to nothing) and adds no knowledge.
const RELAYED_MAX: usize = 12;
/// Before a session that broke is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// How a probe is put.
pub(super) struct ProbeSettings<'a> {
    pub(super) names: &'a Names,
    pub(super) level: u8,
    pub(super) pause: Duration,
}

/// A case that a session did not live to see answered.
struct Broken(String);

/// The session at hand, and how much it has seen.
struct Current {
    talk: Talk,
    cases: usize,
}

/// Puts the probe; `tick` is called after each case.
pub(super) async fn put(
    door: &mut Door<'_>,
    settings: &ProbeSettings<'_>,
    tick: &mut (dyn FnMut(&str) + Send),
) -> ProbeResult {
    let mut result = ProbeResult {
        kind: door.probe.kind,
        server: door.probe.server,
        source: None,
        identity: door.probe.identity,
        greeting: Greeting::default(),
        opening: Vec::new(),
        xclient_still_offered: false,
        cases: Vec::new(),
        cut_short: false,
        problem: None,
    };
    let mut names = settings.names.clone();
    let mut session: Option<Current> = None;
    let mut lost = 0;
    let probe = door.probe;
    for case in &probe.cases {
        // Without a local domain there may be nothing to ask.
        if case.fill(&names).is_none() {
            tick(&case.id);
            continue;
        }
        match try_case(door, settings, case, &mut names, &mut session, &mut result).await {
            Ok(done) => {
                lost = if matches!(done.outcome, Outcome::Lost(_)) { lost + 1 } else { 0 };
                result.cases.push(done);
            }
            Err(problem) => {
                result.problem = Some(problem);
                break;
            }
        }
        if lost >= LOST_MAX {
            result.problem = last_words(&result).map(Problem::Other);
            break;
        }
        tick(&case.id);
        if puts_off_everybody(&result.cases) {
            break;
        }
        if result.marked(Mark::Relayed).len() >= RELAYED_MAX {
            result.cut_short = true;
            break;
        }
        sleep(settings.pause).await;
    }
    if let Some(session) = session {
        session.talk.quit().await;
    }
    result
}

/// Whether no recipient was answered otherwise than by "come again".
fn puts_off_everybody(cases: &[CaseResult]) -> bool {
    let deferred = cases.iter().filter(|case| case.outcome == Outcome::Deferred).count();
    let is_of_the_sender = |case: &CaseResult| case.stage == Stage::Mail && case.outcome == Outcome::Refused;
    deferred >= DEFERRED_MAX && cases.iter().all(|case| case.outcome == Outcome::Deferred || is_of_the_sender(case))
}

fn last_words(result: &ProbeResult) -> Option<String> {
    match &result.cases.last()?.outcome {
        Outcome::Lost(why) => Some(why.clone()),
        _ => None,
    }
}

/// Tries a case in the session at hand or in a new one. An error: no session can be had.
async fn try_case(
    door: &mut Door<'_>,
    settings: &ProbeSettings<'_>,
    case: &'static Case,
    names: &mut Names,
    session: &mut Option<Current>,
    result: &mut ProbeResult,
) -> Result<CaseResult, Problem> {
    if session.as_ref().is_some_and(|session| session.cases >= CASES_PER_SESSION)
        && let Some(session) = session.take()
    {
        session.talk.quit().await;
    }
    let mut retried = false;
    loop {
        if Instant::now() >= door.deadline {
            return Err(Problem::Other("the proof's deadline is over (`proof.deadline`)".to_owned()));
        }
        let (mut current, is_new) = match session.take() {
            Some(current) => (current, false),
            None => (open(door, names, result).await?, true),
        };
        let asked = ask(&mut current.talk, settings, case, names).await;
        let transcript = current.talk.take_transcript();
        current.cases += 1;
        match asked {
            Ok(mut done) => {
                done.transcript = transcript;
                let over = done.stage >= Stage::Data || done.answer.as_ref().is_some_and(|answer| answer.code == 421);
                if !over && reset(&mut current.talk).await {
                    *session = Some(current);
                }
                return Ok(done);
            }
            // The session may have been at its limit: a new one shows whether it was the case.
            Err(Broken(_)) if !is_new || !retried => {
                retried |= is_new;
                sleep(REOPEN_PAUSE).await;
            }
            Err(Broken(why)) => {
                let id = case.id.clone();
                return Ok(CaseResult {
                    id,
                    outcome: Outcome::Lost(why),
                    stage: Stage::Mail,
                    answer: None,
                    transcript,
                });
            }
        }
    }
}

async fn open(door: &mut Door<'_>, names: &mut Names, result: &mut ProbeResult) -> Result<Current, Problem> {
    let mut opened = door.open().await;
    if opened.is_err() && !result.cases.is_empty() {
        // It has worked before; once more then, in a moment.
        sleep(10 * REOPEN_PAUSE).await;
        opened = door.open().await;
    }
    let Opened { mut talk, greeting, source, offer } = opened?;
    let opening = talk.take_transcript();
    if result.opening.is_empty() {
        result.opening = opening;
    }
    if let Some(host) = greeting.hello.first().and_then(|line| line.split_whitespace().next()) {
        names.host = host.to_owned();
    }
    result.xclient_still_offered =
        door.probe.kind == ProbeKind::Outsider && offer.extensions.contains(Extensions::XCLIENT) && is_by_xclient(door);
    result.source = source;
    result.greeting = greeting;
    Ok(Current { talk, cases: 0 })
}

fn is_by_xclient(door: &Door<'_>) -> bool {
    door.mode.is_xclient()
}

/// MAIL and RCPT, and at level 2 DATA.
async fn ask(
    talk: &mut Talk,
    settings: &ProbeSettings<'_>,
    case: &'static Case,
    names: &Names,
) -> Result<CaseResult, Broken> {
    let id = case.id.clone();
    let Some((from, to)) = case.fill(names) else { return Err(Broken("nothing to ask".to_owned())) };
    let mut stage = Stage::Mail;
    let mut answer = talk.ask(&format!("MAIL FROM:{from}")).await.map_err(Broken)?;
    if answer.outcome(stage) == Outcome::Accepted {
        stage = Stage::Rcpt;
        answer = talk.ask(&format!("RCPT TO:{to}")).await.map_err(Broken)?;
        if settings.level >= 2 && case.expect == Expect::Refuse && answer.outcome(stage) == Outcome::Accepted {
            stage = Stage::Data;
            answer = talk.ask("DATA").await.map_err(Broken)?;
        }
    }
    if answer.code == 421 {
        return Err(Broken(format!("it ends the session: 421 {}", answer.text)));
    }
    let outcome = answer.outcome(stage);
    Ok(CaseResult { id, outcome, stage, answer: Some(answer), transcript: Vec::new() })
}

/// Takes it all back; false if the session is not to be used again.
async fn reset(talk: &mut Talk) -> bool {
    let heard = talk.ask("RSET").await;
    // Not worth a line in every transcript.
    let _ = talk.take_transcript();
    heard.is_ok_and(|heard| heard.code == 250)
}
