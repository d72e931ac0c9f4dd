//! Puts one probe: its cases in few sessions, at the pace that the server allows.
//!
//! A case is MAIL, RCPT, RSET. At level 2 an accepted foreign recipient is followed by DATA, and the connection is dropped
//! at 354; nothing is ever delivered by a case. A quick server is asked in one session at a time; one that lets strangers
//! wait in several side by side, each left before the server would end it. What cannot be asked is lost with its reason, and
//! a server that loses too many in a row is left alone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::smtp::ehlo::Extensions;

use super::answer::{CaseResult, Outcome, Stage};
use super::cases::{Case, Expect, Names};
use super::conversation::{Conversation, ConversationFault};
use super::door::{Door, Opened};
use super::pace::Pace;
use super::probe::{Mark, ProbeKind, ProbeResult, Problem};

/// Cases in a row that may be lost.
const LOST_MAX: usize = 3;
/// Cases that may be put off, if nothing else was heard before: who puts off everybody says no more to the rest.
const DEFERRED_MAX: usize = 6;
/// Relayed cases that settle the matter. Each one more costs the server (Postfix holds real mail back for a second once a
/// hundred transactions came to nothing) and adds no knowledge.
const RELAYED_MAX: usize = 12;
/// Before a session that broke is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// How long a server that greets with 421 is waited for, in all.
const BUSY_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// How a probe is put.
pub(super) struct ProbeSettings<'a> {
    pub(super) names: &'a Names,
    pub(super) level: u8,
    pub(super) pause: Duration,
    /// When a slow server is asked no more cases for now; `None`: not before the deadline.
    pub(super) verdict_by: Option<Instant>,
}

/// A case that a session did not live to see answered; why.
struct Broken(Problem);

/// What the sessions of one probe share. Never locked while something is waited for.
struct Shared<'a> {
    left: VecDeque<&'static Case>,
    result: &'a mut ProbeResult,
    pace: &'a mut Pace,
    names: Names,
    tick: &'a mut (dyn FnMut(&str) + Send),
    /// Cases in a row that were lost, and why the last was.
    lost: (usize, Option<Problem>),
    /// Sessions that ask.
    asking: usize,
    /// Nothing more is to be asked.
    is_over: bool,
}

/// One session after another, with a server.
struct Lane<'a> {
    door: Door<'a>,
    settings: &'a ProbeSettings<'a>,
    session: Option<Current>,
}

/// The session at hand, and how much it has seen.
struct Current {
    conversation: Conversation,
    cases: usize,
    errors: usize,
}

/// Puts these cases of the door's probe, and files what came of them in `result`; `tick` is called after each. Those that
/// were not tried are returned.
pub(super) async fn put<'a>(
    door: &mut Door<'a>,
    settings: &'a ProbeSettings<'a>,
    cases: &[&'static Case],
    result: &mut ProbeResult,
    pace: &mut Pace,
    tick: &mut (dyn FnMut(&str) + Send),
) -> Vec<&'static Case> {
    let names = settings.names.clone();
    // Without a local domain there may be nothing to ask.
    let left = cases.iter().copied().filter(|case| case.fill(&names).is_some()).collect();
    let shared = Shared { left, result, pace, names, tick, lost: (0, None), asking: 1, is_over: false };
    let shared = Mutex::new(shared);
    let mut first = Lane { door: door.clone(), settings, session: None };
    first.ask(&shared, true).await;
    let sessions = lock(&shared).begin_together();
    let mut more = (1..sessions).map(|_| first.beside());
    let [mut second, mut third, mut fourth] = [more.next(), more.next(), more.next()];
    drop(more);
    tokio::join!(
        first.ask(&shared, false),
        ask_too(&mut second, &shared),
        ask_too(&mut third, &shared),
        ask_too(&mut fourth, &shared)
    );
    *door = first.door;
    let Shared { left, result, .. } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    result.cases.sort_by_key(|done| cases.iter().position(|case| case.id == done.id));
    left.into()
}

fn lock<'a, 'b>(shared: &'a Mutex<Shared<'b>>) -> MutexGuard<'a, Shared<'b>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask_too(lane: &mut Option<Lane<'_>>, shared: &Mutex<Shared<'_>>) {
    if let Some(lane) = lane {
        lane.ask(shared, false).await;
    }
}

impl<'a> Lane<'a> {
    /// Another one, which knows what this one has learned.
    fn beside(&self) -> Self {
        Self { door: self.door.clone(), settings: self.settings, session: None }
    }

    /// Asks until nothing is left; `alone`, until several would get on better.
    async fn ask(&mut self, shared: &Mutex<Shared<'_>>, alone: bool) {
        loop {
            let next = lock(shared).next(self.settings);
            let Some(case) = next else { break };
            match self.try_case(case, shared).await {
                Ok(done) => lock(shared).file(done),
                Err(problem) => {
                    lock(shared).give_up(case, problem, self.door.deadline);
                    break;
                }
            }
            if alone && lock(shared).pace.sessions() > 1 {
                return;
            }
            sleep(self.settings.pause).await;
        }
        if let Some(session) = self.session.take() {
            session.conversation.quit().await;
        }
    }

    /// Tries a case in the session at hand or in a new one. An error: no session can be had.
    async fn try_case(&mut self, case: &'static Case, shared: &Mutex<Shared<'_>>) -> Result<CaseResult, Problem> {
        let spent = |session: &Current| lock(shared).pace.is_spent(session.cases, session.errors);
        if self.session.as_ref().is_some_and(spent)
            && let Some(session) = self.session.take()
        {
            session.conversation.quit().await;
        }
        let mut retried = false;
        loop {
            if Instant::now() >= self.door.deadline {
                return Err(ConversationFault::DeadlineOver.into());
            }
            let (mut current, is_new) = match self.session.take() {
                Some(current) => (current, false),
                None => (self.open(shared).await?, true),
            };
            let names = lock(shared).names.clone();
            let begun = Instant::now();
            let asked = ask(&mut current.conversation, self.settings.level, case, &names).await;
            let transcript = current.conversation.take_transcript();
            match asked {
                Ok(mut done) => {
                    done.transcript = transcript;
                    current.cases += 1;
                    current.errors += usize::from(done.outcome != Outcome::Accepted);
                    lock(shared).pace.answered_after(begun.elapsed());
                    if done.stage < Stage::Data {
                        self.keep(current, shared).await;
                    }
                    return Ok(done);
                }
                // The session may have been at its limit: a new one shows whether it was the case.
                Err(Broken(_)) if !is_new || !retried => {
                    retried |= is_new;
                    if !is_new {
                        lock(shared).pace.ended_after(current.errors);
                    }
                    sleep(REOPEN_PAUSE).await;
                }
                Err(Broken(problem)) => {
                    let (id, outcome) = (case.id.clone(), Outcome::Lost(problem.to_string()));
                    lock(shared).lost.1 = Some(problem);
                    return Ok(CaseResult { id, outcome, stage: Stage::Mail, answer: None, transcript });
                }
            }
        }
    }

    /// Takes the case back, and keeps the session for the next, if the server does.
    async fn keep(&mut self, mut current: Current, shared: &Mutex<Shared<'_>>) {
        if lock(shared).pace.is_spent(current.cases, current.errors) {
            self.session = Some(current);
            return;
        }
        let heard = current.conversation.ask("RSET").await;
        // Not worth a line in every transcript.
        let _ = current.conversation.take_transcript();
        if heard.is_ok_and(|heard| heard.code == 250) {
            self.session = Some(current);
        } else {
            lock(shared).pace.ended_after(current.errors);
        }
    }

    async fn open(&mut self, shared: &Mutex<Shared<'_>>) -> Result<Current, Problem> {
        let mut opened = self.door.open().await;
        for pause in BUSY_PAUSES {
            let may_wait = match &opened {
                Err(Problem::Busy(_)) => lock(shared).asking == 1,
                // It has worked before; once more then, in a moment.
                Err(_) => pause == BUSY_PAUSES[0] && !lock(shared).result.cases.is_empty(),
                Ok(_) => false,
            };
            if may_wait && Instant::now() + pause < self.door.deadline {
                sleep(pause).await;
                opened = self.door.open().await;
            }
        }
        let Opened { mut conversation, greeting, source, offer } = opened?;
        let opening = conversation.take_transcript();
        let mut shared = lock(shared);
        if shared.result.opening.is_empty() {
            shared.result.opening = opening;
        }
        if let Some(host) = greeting.hello.first().and_then(|line| line.split_whitespace().next()) {
            host.clone_into(&mut shared.names.host);
        }
        let named = self.door.probe.kind == ProbeKind::Outsider && self.door.mode.is_xclient();
        shared.result.xclient_still_offered = named && offer.extensions.contains(Extensions::XCLIENT);
        shared.result.source = source;
        shared.result.greeting = greeting;
        Ok(Current { conversation, cases: 0, errors: 0 })
    }
}

impl Shared<'_> {
    /// How many sessions are to ask from now on.
    fn begin_together(&mut self) -> usize {
        self.asking = if self.is_over { 1 } else { self.pace.sessions() };
        self.asking
    }

    /// The next case, if there is one and it is time for it.
    fn next(&mut self, settings: &ProbeSettings<'_>) -> Option<&'static Case> {
        let postponed = self.pace.is_slow() && settings.verdict_by.is_some_and(|by| Instant::now() >= by);
        if self.is_over || postponed { None } else { self.left.pop_front() }
    }

    fn file(&mut self, done: CaseResult) {
        (self.tick)(&done.id);
        self.lost.0 = if matches!(done.outcome, Outcome::Lost(_)) { self.lost.0 + 1 } else { 0 };
        self.result.cases.push(done);
        if self.lost.0 >= LOST_MAX {
            self.result.problem = self.lost.1.take();
            self.is_over = true;
        }
        if puts_off_everybody(&self.result.cases) {
            self.is_over = true;
        }
        if self.result.marked(Mark::Relayed).len() >= RELAYED_MAX {
            self.result.cut_short = true;
            self.is_over = true;
        }
    }

    /// A lane ends. If it was the last one, so does the probe.
    fn give_up(&mut self, case: &'static Case, problem: Problem, deadline: Instant) {
        self.left.push_front(case);
        self.asking -= 1;
        if self.asking > 0 && Instant::now() < deadline {
            self.pace.refused_beside(self.asking);
            return;
        }
        self.is_over = true;
        if self.result.problem.is_none() {
            self.result.problem = Some(problem);
        }
    }
}

/// Whether no recipient was answered otherwise than by "come again".
pub(super) fn puts_off_everybody(cases: &[CaseResult]) -> bool {
    let deferred = cases.iter().filter(|case| case.outcome == Outcome::Deferred).count();
    let is_of_the_sender = |case: &CaseResult| case.stage == Stage::Mail && case.outcome == Outcome::Refused;
    deferred >= DEFERRED_MAX && cases.iter().all(|case| case.outcome == Outcome::Deferred || is_of_the_sender(case))
}

/// MAIL and RCPT, and at level 2 DATA.
async fn ask(
    conversation: &mut Conversation,
    level: u8,
    case: &'static Case,
    names: &Names,
) -> Result<CaseResult, Broken> {
    let id = case.id.clone();
    let Some((from, to)) = case.fill(names) else { return Err(Broken(Problem::Other("nothing to ask".to_owned()))) };
    let lost = |fault: ConversationFault| Broken(fault.into());
    let mut stage = Stage::Mail;
    let mut answer = conversation.ask(&format!("MAIL FROM:{from}")).await.map_err(lost)?;
    if answer.outcome(stage) == Outcome::Accepted {
        stage = Stage::Rcpt;
        answer = conversation.ask(&format!("RCPT TO:{to}")).await.map_err(lost)?;
        if level >= 2 && case.expect == Expect::Refuse && answer.outcome(stage) == Outcome::Accepted {
            stage = Stage::Data;
            answer = conversation.ask("DATA").await.map_err(lost)?;
        }
    }
    if answer.code == 421 {
        return Err(Broken(Problem::Busy(format!("it ends the session: 421 {}", answer.text))));
    }
    let outcome = answer.outcome(stage);
    Ok(CaseResult { id, outcome, stage, answer: Some(answer), transcript: Vec::new() })
}
