//! Numbers on their way to another process of the same gateway, which goes on counting from there.
//!
//! By name, and by label or bound, so that another version takes what it knows too, and leaves the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// By the name of what is counted: how often, by label; a counter without labels has the empty one, a histogram its buckets'
/// bounds and `SUM`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(pub(super) BTreeMap<String, BTreeMap<String, u64>>);

/// A histogram's sum of all sizes, among its bounds.
pub(super) const SUM: &str = "sum";
/// The bucket above all bounds.
pub(super) const ABOVE: &str = "above";

impl Counts {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let of = |name: &str, label: &str| earlier.0.get(name).and_then(|labels| labels.get(label)).copied();
        let grown = self.0.iter().filter_map(|(name, labels)| {
            let grown = labels.iter().map(|(label, count)| (label, count.saturating_sub(of(name, label).unwrap_or(0))));
            let grown: BTreeMap<_, _> =
                grown.filter(|(_, more)| *more > 0).map(|(l, more)| (l.clone(), more)).collect();
            (!grown.is_empty()).then(|| (name.clone(), grown))
        });
        Self(grown.collect())
    }

    /// Adds what was counted since.
    pub fn add(&mut self, more: &Self) {
        for (name, labels) in &more.0 {
            let own = self.0.entry(name.clone()).or_default();
            for (label, count) in labels {
                *own.entry(label.clone()).or_default() += count;
            }
        }
    }

    pub(super) fn set(&mut self, name: &str, label: String, count: u64) {
        self.0.entry(name.to_owned()).or_default().insert(label, count);
    }

    /// Of a name: each label, and how often.
    pub(super) fn labels(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        self.0.get(name).into_iter().flatten().map(|(label, count)| (label.as_str(), *count))
    }

    /// Of a counter without labels.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).and_then(|labels| labels.get("")).copied().unwrap_or(0)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
