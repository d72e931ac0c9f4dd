//! What one server bears, and whether it should be given more: its open sessions, its failures of late, a drain.
//!
//! All of it is read when a session chooses among several servers, and written without a lock. A server without others
//! beside it is not chosen, and none of this costs its sessions anything.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Millis;

/// Failures in a row after which a server is left alone for a time.
const FAILURES_MAX: u32 = 3;
/// How long; then one session tries, and the others when it has succeeded.
const PAUSE: Duration = Duration::from_secs(10);
/// How long nobody else tries meanwhile.
const TRIAL: Duration = Duration::from_secs(2);
/// How long a server that said it is busy is left alone.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How long a server that came back gets less than its share.
pub(super) const SLOW_START: Duration = Duration::from_secs(30);

/// What a server bears.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Open sessions that chose it among others, or that are counted because there is a limit.
    sessions: AtomicU32,
    /// In a row.
    failures: AtomicU32,
    /// Milliseconds on the one clock; until then others are taken where there are any.
    avoided_until: AtomicU64,
    /// When it came back; 0 if it was never away.
    back_at: AtomicU64,
    /// Since when health checks wait for its first word; 0 if none does.
    asked_at: AtomicU64,
    /// How long it let the last one wait for that that heard it, in milliseconds.
    greets_after: AtomicU64,
    /// The last health check went badly.
    is_down: AtomicBool,
    /// An administrator takes it out.
    is_draining: AtomicBool,
}

impl Load {
    pub(super) fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// One session more, if that leaves no more than `most`; 0 for any number.
    pub(super) fn enter(&self, most: u32) -> bool {
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        if most != 0 && before >= most {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    pub(super) fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// It could not be connected to, or did not greet as a mail server should.
    pub(super) fn failed(&self, now: Millis) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.avoid(now, PAUSE);
        }
    }

    /// It cannot do what it must, for anybody.
    pub(super) fn is_unfit(&self, now: Millis) {
        self.failures.store(FAILURES_MAX, Ordering::Relaxed);
        self.avoid(now, PAUSE);
    }

    /// It takes no connection now, but will.
    pub(super) fn is_busy(&self, now: Millis) {
        self.avoid(now, BUSY_PAUSE);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) != 0
    }

    /// A session with it opened.
    pub(super) fn succeeded(&self, now: Millis) {
        if self.failures.swap(0, Ordering::Relaxed) >= FAILURES_MAX {
            self.avoided_until.store(0, Ordering::Relaxed);
            self.came_back(now);
        }
    }

    /// What the last health check saw.
    pub(super) fn set_down(&self, is_down: bool, now: Millis) {
        if self.is_down.swap(is_down, Ordering::Relaxed) && !is_down {
            self.failures.store(0, Ordering::Relaxed);
            self.avoided_until.store(0, Ordering::Relaxed);
            self.came_back(now);
        }
    }

    /// Whether sessions have found that it opens none, and not yet that it does again.
    pub(super) fn fails_sessions(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    /// Whether the last health check went badly.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// A health check waits for its first word, as the one before may have in vain.
    pub(super) fn is_asked(&self, now: Millis) {
        // Health checks come one after the other.
        if self.asked_at.load(Ordering::Relaxed) == 0 {
            self.asked_at.store(now.0.max(1), Ordering::Relaxed);
        }
    }

    /// It has spoken to a health check that asked it at this time.
    pub(super) fn has_spoken(&self, asked_at: Millis, now: Millis) {
        self.greets_after.store(now.since(asked_at), Ordering::Relaxed);
        self.is_not_asked();
    }

    /// No health check waits for it any more: what is wrong with it is not that it says nothing.
    pub(super) fn is_not_asked(&self) {
        self.asked_at.store(0, Ordering::Relaxed);
    }

    /// Whether health checks have waited for so long, and for twice as long as it took when it spoke: some hold their greeting
    /// back from everybody.
    pub(super) fn is_silent(&self, now: Millis, span: Duration) -> bool {
        let asked_at = self.asked_at.load(Ordering::Relaxed);
        let greets_after = Duration::from_millis(self.greets_after.load(Ordering::Relaxed));
        asked_at != 0 && now >= Millis(asked_at).after(span.max(greets_after * 2))
    }

    /// Whether others should be taken where there are any.
    pub(super) fn is_avoided(&self, now: Millis) -> bool {
        self.is_down.load(Ordering::Relaxed) || now.0 < self.avoided_until.load(Ordering::Relaxed)
    }

    /// It is about to be tried. If it was left alone until now, this is the trial, and others wait for what comes of it.
    pub(super) fn is_tried(&self, now: Millis) {
        if self.failures.load(Ordering::Relaxed) >= FAILURES_MAX {
            self.avoid(now, TRIAL);
        }
    }

    /// In thousandths, how much of its share it gets.
    pub(super) fn share(&self, now: Millis) -> u32 {
        let back_at = self.back_at.load(Ordering::Relaxed);
        let whole = SLOW_START.as_millis();
        let since = u128::from(now.since(Millis(back_at)));
        if back_at == 0 || since >= whole {
            return 1000;
        }
        u32::try_from(since * 1000 / whole).unwrap_or(1000).max(100)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Whether it is taken out; what it was.
    pub(super) fn set_draining(&self, draining: bool) -> bool {
        self.is_draining.swap(draining, Ordering::Relaxed)
    }

    fn avoid(&self, now: Millis, span: Duration) {
        self.avoided_until.fetch_max(now.after(span).0, Ordering::Relaxed);
    }

    fn came_back(&self, now: Millis) {
        self.back_at.store(now.0.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_and_again_is_left_alone_and_then_tried_by_one() {
        let load = Load::default();
        let at = |seconds: u64| Millis(1_000_000 + seconds * 1000);
        load.failed(at(0));
        load.failed(at(0));
        assert!(!load.is_avoided(at(0)), "twice may be chance");
        load.failed(at(0));
        assert!(load.is_avoided(at(0)) && load.is_avoided(at(9)) && !load.is_avoided(at(10)));
        load.is_tried(at(10));
        assert!(load.is_avoided(at(11)), "one tries");
        assert!(!load.is_avoided(at(12)), "and the next if nothing came of that");
        load.succeeded(at(12));
        assert!(!load.is_avoided(at(12)));
        assert_eq!([12, 27, 42].map(|s| load.share(at(s))), [100, 500, 1000]);
        load.is_unfit(at(50));
        assert!(load.is_avoided(at(50)), "at once");
    }

    #[test]
    fn who_is_busy_is_not_down() {
        let load = Load::default();
        load.is_busy(Millis(5000));
        assert!(load.is_avoided(Millis(5999)) && !load.is_avoided(Millis(6000)));
        assert_eq!(load.share(Millis(6000)), 1000, "and has not come back");
    }

    #[test]
    fn who_is_asked_and_says_nothing_is_silent() {
        let load = Load::default();
        let span = Duration::from_secs(5);
        assert!(!load.is_silent(Millis(9000), span), "nobody has asked");
        load.is_asked(Millis(2000));
        assert!(!load.is_silent(Millis(6999), span) && load.is_silent(Millis(7000), span));
        load.is_asked(Millis(6500));
        assert!(load.is_silent(Millis(7000), span), "the check before was not answered either");
        load.has_spoken(Millis(6500), Millis(14_500));
        assert!(!load.is_silent(Millis(14_500), span), "it has spoken");
        load.is_asked(Millis(20_000));
        assert!(!load.is_silent(Millis(35_999), span) && load.is_silent(Millis(36_000), span), "it takes its time");
        load.is_not_asked();
        assert!(!load.is_silent(Millis(60_000), span), "it does not say nothing");
    }

    #[test]
    fn a_limit_is_kept() {
        let load = Load::default();
        assert!(load.enter(2) && load.enter(2) && !load.enter(2));
        assert_eq!(load.sessions(), 2);
        load.leave();
        assert!(load.enter(2) && load.enter(0), "0 is no limit");
    }
}
