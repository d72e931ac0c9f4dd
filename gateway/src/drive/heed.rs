//! What a session heeds besides bytes: its timer, the way down, and whoever calls it.

use std::task::Context;

use crate::session::ServerSeen;
use crate::time::Millis;

use super::buffers::Scratch;
use super::closing::Closing;
use super::roll;
use super::task::SessionTask;
use super::worker::{Drain, Notice, register};

impl SessionTask {
    /// The timer is moved only towards the present; one that goes off too early is set anew then.
    pub(super) fn arm_timer(&mut self, cx: &mut Context<'_>) {
        self.timer.pull(self.session.deadline());
        if self.timer.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    pub(super) fn check_timer(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch) {
        if !self.timer.is_due(now) || self.closing != Closing::No {
            return;
        }
        if now >= self.session.deadline() {
            let down = self.chosen.as_ref().is_some_and(|chosen| chosen.server().is_known_down(now));
            let seen = ServerSeen { stalled: !self.backend.is_flushed(), down };
            self.session.tick(now, seen, &mut scratch.out);
            self.carry_out(cx, now, &mut scratch.out, &[]);
        }
        self.timer.set(self.session.deadline().max(Millis(now.0 + 1)));
    }

    /// Heeds what every session must: the way down, and calls.
    pub(super) fn check_notice(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch) {
        if self.heeded == Notice::default() && self.client.bytes_in == 0 {
            register(self.id, cx.waker());
        }
        let notice = self.worker.drain.notice();
        if notice == self.heeded {
            return;
        }
        let (before, stage) = (self.heeded.stage(), notice.stage());
        self.heeded = notice;
        let ends = roll::answer(self.id, || self.line(now));
        if self.closing != Closing::No {
            return;
        }
        if ends {
            self.session.kill(now, &mut scratch.out);
        } else if stage != before {
            match stage {
                Drain::No => {}
                Drain::Gently => self.session.drain(&mut scratch.out),
                Drain::Now => self.session.drain_now(now, &mut scratch.out),
            }
        }
        self.carry_out(cx, now, &mut scratch.out, &[]);
    }
}
