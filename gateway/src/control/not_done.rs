//! Why a gateway does not do what it was asked.

use std::error::Error;

/// Why a gateway that understood does not do what it was asked: a sentence for whoever asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotDone(Box<dyn Error + Send + Sync>);

impl NotDone {
    /// For this reason: an error, or a sentence.
    pub fn new(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(why.into())
    }
}
