//! A session's one timer.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use crate::time::Millis;
use crate::time::clock::instant;

/// Goes off at the session's next deadline, or earlier. To set one costs a look at the runtime's wheel, so it is moved only
/// towards the present, and one that goes off too early is set anew then.
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    at: Millis,
}

impl Timer {
    pub(super) fn new(at: Millis) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(instant(at))), at }
    }

    pub(super) fn is_due(&self, now: Millis) -> bool {
        now >= self.at
    }

    /// Goes off no later than `deadline`.
    pub(super) fn pull(&mut self, deadline: Millis) {
        if deadline < self.at {
            self.set(deadline);
        }
    }

    /// Goes off then.
    pub(super) fn set(&mut self, deadline: Millis) {
        if deadline != self.at {
            self.at = deadline;
            self.sleep.as_mut().reset(instant(deadline));
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}
