//! Who may take this process's place, and when a reload is to be an upgrade.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::control::{ProgramId, Successor, UpgradeAnswer};

use super::handover::VERSION;

/// How long a reload may be an upgrade after one was asked for: as long as the service manager may take to begin it.
const WANTED_FOR: Duration = Duration::from_secs(60);

/// A process that asks to take over; one at a time.
#[derive(Debug)]
pub struct Candidate {
    pub(super) successor: Successor,
    pub(super) _turn: OwnedSemaphorePermit,
}

/// What upgrades hang on.
#[derive(Debug)]
pub(super) struct Upgrades {
    candidates: mpsc::Sender<Candidate>,
    /// One at a time.
    turn: Arc<Semaphore>,
    /// That this process runs.
    program: Option<ProgramId>,
    /// When one was asked for.
    wanted: Mutex<Option<Instant>>,
}

impl Upgrades {
    /// Candidates come by the channel.
    pub(super) fn new() -> (Self, mpsc::Receiver<Candidate>) {
        let (candidates, asked) = mpsc::channel(1);
        let program = ProgramId::own().ok();
        (Self { candidates, turn: Arc::new(Semaphore::new(1)), program, wanted: Mutex::default() }, asked)
    }

    /// A process asks to take over.
    pub(super) fn candidate(&self, successor: Successor, version: u32) -> Result<(), (Successor, String)> {
        if version != VERSION {
            let why = format!(
                "the gateway that runs hands over by other words (version {VERSION}, and this program's are version {version}); \
                 this takes a restart"
            );
            return Err((successor, why));
        }
        let Ok(turn) = self.turn.clone().try_acquire_owned() else {
            return Err((successor, "another upgrade is under way; wait until it is done".to_owned()));
        };
        let sent = self.candidates.try_send(Candidate { successor, _turn: turn });
        sent.map_err(|error| (error.into_inner().successor, "the gateway is going down".to_owned()))
    }

    /// An administrator wants one: how to begin.
    pub(super) fn want(&self) -> UpgradeAnswer {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        UpgradeAnswer::own()
    }

    /// Whether a reload that this program asks for is to be an upgrade.
    pub(super) fn are_wanted_by(&self, program: ProgramId) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.program != Some(program) || wanted.is_some_and(|wanted| wanted.elapsed() < WANTED_FOR)
    }
}
