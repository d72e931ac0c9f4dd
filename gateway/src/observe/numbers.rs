//! The kinds of numbers: each is written with relaxed atomics by one worker, and read by whoever asks.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counts::{ABOVE, SUM};
use super::declare::Label;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// As it stands.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Most values that a label may have.
const LABELS_MAX: usize = 16;

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Family<L> {
    counters: [Counter; LABELS_MAX],
    label: PhantomData<L>,
}

/// What a [`Family`] held at one moment.
#[derive(Debug)]
pub struct FamilyTotals<L> {
    values: [u64; LABELS_MAX],
    label: PhantomData<L>,
}

impl<L: Label> Family<L> {
    /// One more of this.
    pub fn increment(&self, label: L) {
        self.counters[label.index()].increment();
    }

    /// So many more of this.
    pub fn add(&self, label: L, count: u64) {
        self.counters[label.index()].add(count);
    }

    /// What another process counted; labels that are not known are left out.
    pub(super) fn absorb(&self, counts: &BTreeMap<String, u64>) {
        for label in L::ALL {
            self.add(*label, counts.get(label.as_str()).copied().unwrap_or(0));
        }
    }
}

impl<L: Label> FamilyTotals<L> {
    pub(super) fn add(&mut self, family: &Family<L>) {
        for (value, counter) in self.values.iter_mut().zip(&family.counters) {
            *value += counter.value();
        }
    }

    /// Of this one.
    pub fn of(&self, label: L) -> u64 {
        self.values[label.index()]
    }

    /// Of all labels together.
    pub fn sum(&self) -> u64 {
        self.values.iter().sum()
    }
}

impl<L: Label> Default for Family<L> {
    fn default() -> Self {
        const { assert!(L::ALL.len() <= LABELS_MAX) };
        Self { counters: Default::default(), label: PhantomData }
    }
}

impl<L> Default for FamilyTotals<L> {
    fn default() -> Self {
        Self { values: [0; LABELS_MAX], label: PhantomData }
    }
}

impl<L> Clone for FamilyTotals<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for FamilyTotals<L> {}

/// What a histogram counts, and its buckets' upper bounds, ascending.
pub trait Scale: 'static {
    /// In what is observed: milliseconds or bytes.
    const BOUNDS: &'static [u64];
    /// How many of that are one of the unit that is shown.
    const PER_UNIT: f64;
}

/// Milliseconds, shown as seconds.
#[derive(Debug)]
pub struct Durations;

impl Scale for Durations {
    const BOUNDS: &'static [u64] =
        &[1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000];
    const PER_UNIT: f64 = 1000.0;
}

/// Bytes.
#[derive(Debug)]
pub struct Sizes;

impl Scale for Sizes {
    const BOUNDS: &'static [u64] =
        &[1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28];
    const PER_UNIT: f64 = 1.0;
}

/// Most buckets of a histogram, that above all bounds among them.
const BUCKETS_MAX: usize = 17;

/// How often something had which size.
#[derive(Debug)]
pub struct Histogram<S> {
    buckets: [Counter; BUCKETS_MAX],
    sum: Counter,
    scale: PhantomData<S>,
}

/// What a [`Histogram`] held at one moment.
#[derive(Debug)]
pub struct HistogramTotals<S> {
    buckets: [u64; BUCKETS_MAX],
    sum: u64,
    scale: PhantomData<S>,
}

impl<S: Scale> Histogram<S> {
    /// One of this size.
    pub fn observe(&self, size: u64) {
        self.buckets[S::BOUNDS.partition_point(|bound| *bound < size)].increment();
        self.sum.add(size);
    }

    /// What another process counted. Where its bounds are others, each count goes where its bound belongs.
    pub(super) fn absorb(&self, counts: &BTreeMap<String, u64>) {
        for (label, count) in counts {
            match (label.as_str(), label.parse::<u64>()) {
                (SUM, _) => self.sum.add(*count),
                (ABOVE, _) => self.buckets[S::BOUNDS.len()].add(*count),
                (_, Ok(bound)) => self.buckets[S::BOUNDS.partition_point(|own| *own < bound)].add(*count),
                (_, Err(_)) => {}
            }
        }
    }
}

impl<S: Scale> HistogramTotals<S> {
    pub(super) fn add(&mut self, histogram: &Histogram<S>) {
        for (bucket, counter) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *bucket += counter.value();
        }
        self.sum += histogram.sum.value();
    }

    /// For another process, by bounds.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let bounds = S::BOUNDS.iter().map(u64::to_string).chain([ABOVE.to_owned()]);
        bounds.zip(self.buckets).chain([(SUM.to_owned(), self.sum)]).collect()
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All sizes added up, in the unit that is shown.
    pub fn sum(&self) -> f64 {
        scaled::<S>(self.sum)
    }

    /// Upper bounds in the unit that is shown, and how many were in each bucket; the last has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = S::BOUNDS.iter().map(|bound| scaled::<S>(*bound)).chain([f64::INFINITY]);
        bounds.zip(self.buckets)
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 milliseconds or bytes are enough")]
fn scaled<S: Scale>(size: u64) -> f64 {
    size as f64 / S::PER_UNIT
}

impl<S: Scale> Default for Histogram<S> {
    fn default() -> Self {
        const { assert!(S::BOUNDS.len() < BUCKETS_MAX) };
        Self { buckets: Default::default(), sum: Counter::default(), scale: PhantomData }
    }
}

impl<S> Default for HistogramTotals<S> {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS_MAX], sum: 0, scale: PhantomData }
    }
}

impl<S> Clone for HistogramTotals<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for HistogramTotals<S> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::<Durations>::default();
        for size in [0, 1, 2, 600_000, 600_001] {
            histogram.observe(size);
        }
        let mut totals = HistogramTotals::default();
        totals.add(&histogram);
        let buckets: Vec<_> = totals.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(buckets, [(0.001, 2), (0.005, 1), (600.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((totals.count(), totals.sum()), (5, 1200.004));
        assert_eq!(totals.buckets().count(), Durations::BOUNDS.len() + 1);
    }

    #[test]
    fn bounds_ascend() {
        assert!(Durations::BOUNDS.is_sorted() && Sizes::BOUNDS.is_sorted());
    }
}
