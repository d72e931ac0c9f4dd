//! The roll of one worker's sessions: each is asked what it is doing when somebody wants to know, and keeps nothing for it.
//!
//! Sessions are futures that only their own polling can look into. So the question is laid out on the worker's thread, the
//! sessions are woken a few at a time, and each that finds itself called writes its line.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::tls::TlsFacts;

use super::worker::{DrainState, wakers};

/// Sessions that are woken at once, so that those with mail are not held up.
const BATCH: usize = 32;
/// How often the answers are waited for after the last was woken.
const ROUNDS_MAX: usize = 1000;

/// What is asked of every session.
#[derive(Debug, Clone, Copy)]
pub enum SessionQuery {
    /// What each is doing.
    All {
        /// So many sessions are enough.
        limit: usize,
    },
    /// That this one says what it is doing, and ends.
    End {
        /// As the log and `sessions` have it.
        session: u64,
    },
}

/// What a session says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLine {
    /// Unique while the gateway runs; the older the session, the lower.
    pub id: u64,
    /// Who the gateway believes the client to be.
    pub client: IpAddr,
    /// Whoever holds the other end of the socket.
    pub peer: IpAddr,
    /// What the client called itself.
    pub helo: Option<String>,
    /// Name of the route that it took last.
    pub route: Option<String>,
    /// Name of the backend.
    pub backend: String,
    /// What it is doing.
    pub state: &'static str,
    /// Since it was accepted.
    pub age_ms: u64,
    /// Octets read from the client.
    pub bytes_in: u64,
    /// Messages the backend accepted.
    pub accepted: u32,
    /// Code of the last reply to the client; 0 for none.
    pub last_reply: u16,
    /// What was agreed upon with the client, over TLS.
    pub tls: Option<TlsFacts>,
    /// The same with the backend.
    pub backend_tls: Option<TlsFacts>,
}

/// What came of a question on one worker.
#[derive(Debug, Default)]
pub struct Roll {
    /// The oldest first.
    pub lines: Vec<SessionLine>,
    /// Sessions that are not among them.
    pub more: u64,
}

struct Asked {
    question: SessionQuery,
    lines: BTreeMap<u64, SessionLine>,
    /// Who has answered: a session is called again whenever another worker's sessions are.
    answered: HashSet<u64>,
}

thread_local! {
    static ASKED: RefCell<Option<Asked>> = const { RefCell::new(None) };
}

/// Asks every session of this thread. One question at a time.
pub async fn ask_sessions(question: SessionQuery, state: &DrainState) -> Roll {
    ASKED.with(|asked| *asked.borrow_mut() = Some(Asked::new(question)));
    state.call();
    let wakers = wakers();
    let expected = wakers.len();
    let answered = || ASKED.with(|asked| asked.borrow().as_ref().map_or(0, |asked| asked.answered.len()));
    for batch in wakers.chunks(BATCH) {
        batch.iter().for_each(std::task::Waker::wake_by_ref);
        tokio::task::yield_now().await;
    }
    // Some may have ended meanwhile, so that not all answer.
    for _ in 0..ROUNDS_MAX {
        if answered() >= expected || matches!(question, SessionQuery::End { .. }) && answered() > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let asked = ASKED.with(|asked| asked.borrow_mut().take());
    let Some(Asked { lines, answered, .. }) = asked else { return Roll::default() };
    let more = u64::try_from(answered.len() - lines.len()).unwrap_or(u64::MAX);
    Roll { lines: lines.into_values().collect(), more }
}

/// A session that finds itself called: its line is taken if somebody asks, and whether it shall end.
pub(super) fn answer(id: u64, line: impl FnOnce() -> SessionLine) -> bool {
    ASKED.with(|asked| {
        let mut asked = asked.borrow_mut();
        let Some(Asked { question, lines, answered }) = asked.as_mut() else { return false };
        match *question {
            SessionQuery::All { limit } => {
                if answered.insert(id) {
                    lines.insert(id, line());
                    if lines.len() > limit {
                        lines.pop_last();
                    }
                }
                false
            }
            SessionQuery::End { session } if session == id => {
                answered.insert(id);
                lines.insert(id, line());
                true
            }
            SessionQuery::End { .. } => false,
        }
    })
}

impl Asked {
    fn new(question: SessionQuery) -> Self {
        Self { question, lines: BTreeMap::new(), answered: HashSet::new() }
    }
}
