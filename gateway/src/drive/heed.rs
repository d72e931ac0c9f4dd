//! What a session heeds besides bytes: its timer, the way down, and whoever calls it.

use std::task::Context;

use crate::backend::ChosenServer;
use crate::session::ServerSeen;
use crate::time::Millis;

use super::backend_side::BackendSide;
use super::buffers::Scratch;
use super::closing::Closing;
use super::roll;
use super::task::SessionTask;
use super::turns;
use super::worker::{Drain, Notice, register};

impl SessionTask {
    /// The timer is moved only towards the present; one that goes off too early is set anew then.
    pub(super) fn arm_timer(&mut self, cx: &mut Context<'_>) {
        self.timer.pull(self.session.deadline().max(self.turn));
        if self.timer.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    pub(super) fn check_timer(&mut self, cx: &mut Context<'_>, now: Millis, scratch: &mut Scratch) {
        if !self.timer.is_due(now) || self.closing != Closing::No {
            return;
        }
        if now >= self.session.deadline() {
            if !self.has_turn(now) {
                return;
            }
            let server = self.chosen.as_ref().map(ChosenServer::server);
            let seen = ServerSeen {
                stalled: !self.backend.is_flushed(),
                down: server.is_some_and(|server| server.is_known_down(now)),
                silent: server.is_some_and(|server| server.is_silent(now)),
            };
            self.session.tick(now, seen, &mut scratch.out);
            self.carry_out(cx, now, &mut scratch.out, &[]);
            // Not every deadline is the last.
            if self.closing == Closing::No {
                self.turn = Millis(0);
            }
        }
        self.timer.set(self.session.deadline().max(Millis(now.0 + 1)));
    }

    /// Whether it may end now; otherwise its timer is for when it may. On the way down nobody waits.
    pub(super) fn has_turn(&mut self, now: Millis) -> bool {
        if self.worker.drain.notice().stage() != Drain::No {
            return true;
        }
        if self.turn == Millis(0) {
            self.turn = turns::take(now);
        }
        let has = now >= self.turn;
        if !has {
            self.timer.set(self.turn);
        }
        has
    }

    /// Whether the client has hung up with nothing of its on the way, and others are let go before it. What it said last waits
    /// as long.
    pub(super) fn awaits_turn(&mut self, now: Millis) -> bool {
        matches!(self.backend, BackendSide::None) && self.client.has_hung_up() && !self.has_turn(now)
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
