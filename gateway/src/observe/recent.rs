//! A bounded memory of what happened: who adds to it never waits, and what comes too fast is lost and counted.
//!
//! Entries go into a bounded queue; readers take the queue's content over into a ring of the last ones.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is remembered knows its own number.
pub trait Numbered {
    /// Grows with each entry since its beginning; the first is 1.
    fn number(&self) -> u64;
}

/// The queue and the ring.
#[derive(Debug)]
pub struct Recent<T> {
    queue: SyncSender<T>,
    kept: Mutex<Kept<T>>,
    kept_max: usize,
    number: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Kept<T> {
    queue: Receiver<T>,
    entries: VecDeque<T>,
}

impl<T: Numbered + Clone> Recent<T> {
    /// That remembers the last `kept_max` entries, and has room for `queue_max` that nobody has taken over yet.
    pub fn new(kept_max: usize, queue_max: usize) -> Self {
        let (sender, receiver) = sync_channel(queue_max);
        let kept = Mutex::new(Kept { queue: receiver, entries: VecDeque::new() });
        Self { queue: sender, kept, kept_max, number: AtomicU64::new(1), lost: AtomicU64::new(0) }
    }

    /// Adds what `entry` makes of its number.
    pub fn push(&self, entry: impl FnOnce(u64) -> T) {
        let entry = entry(self.number.fetch_add(1, Ordering::Relaxed));
        if self.queue.try_send(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts what another process remembered before everything that is remembered here, to which `renumber` gives higher numbers.
    /// To be called while nobody adds: what is on its way keeps its number.
    pub fn adopt(&self, earlier: Vec<T>, renumber: impl Fn(&mut T, u64)) {
        let Some(last) = earlier.last().map(Numbered::number) else { return };
        let mut kept = self.gathered();
        self.number.fetch_add(last, Ordering::Relaxed);
        for entry in &mut kept.entries {
            renumber(entry, last.saturating_add(entry.number()));
        }
        let room = self.kept_max.saturating_sub(kept.entries.len());
        earlier.into_iter().rev().take(room).for_each(|entry| kept.entries.push_front(entry));
    }

    /// Takes over what waits in the queue.
    pub fn gather(&self) {
        drop(self.gathered());
    }

    /// At most `limit` entries with higher numbers than `after`, the latest, in their order.
    pub fn since(&self, after: u64, limit: usize) -> Vec<T> {
        let kept = self.gathered();
        let entries = kept.entries.iter().filter(|entry| entry.number() > after);
        let skipped = entries.clone().count().saturating_sub(limit);
        entries.skip(skipped).cloned().collect()
    }

    /// The number of the last entry; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.number.load(Ordering::Relaxed) - 1
    }

    /// Entries that came faster than they were taken over.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn gathered(&self) -> MutexGuard<'_, Kept<T>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { queue, entries } = &mut *kept;
        for entry in queue.try_iter() {
            if entries.len() == self.kept_max {
                entries.pop_front();
            }
            // Two that are numbered at once may come the other way round.
            let at = entries.iter().rposition(|other| other.number() < entry.number()).map_or(0, |at| at + 1);
            entries.insert(at, entry);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Numbered for u64 {
        fn number(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn the_last_are_kept_in_order() {
        let recent = Recent::new(10, 4);
        for _ in 0..13 {
            recent.push(|number| number);
            recent.gather();
        }
        assert_eq!(recent.since(0, usize::MAX), (4..=13).collect::<Vec<_>>());
        assert_eq!(recent.since(5, 3), [11, 12, 13]);
        assert_eq!((recent.since(13, 3), recent.last()), (Vec::new(), 13));
    }

    #[test]
    fn what_another_process_remembered_comes_before() {
        let recent = Recent::new(5, 4);
        let renumber = |entry: &mut u64, number| *entry = number;
        recent.adopt(Vec::new(), renumber);
        (0..2).for_each(|_| recent.push(|number| number));
        recent.adopt(vec![95, 96, 98, 99], renumber);
        recent.push(|number| number);
        assert_eq!((recent.since(0, usize::MAX), recent.last()), (vec![98, 99, 100, 101, 102], 102));
    }

    #[test]
    fn who_adds_never_waits_and_what_is_lost_is_counted() {
        let recent = Recent::new(10, 4);
        for _ in 0..9 {
            recent.push(|number| number);
        }
        assert_eq!((recent.lost(), recent.since(0, 9)), (5, vec![1, 2, 3, 4]));
    }
}
