//! How messages end, for all numbers of them.

use super::declare::label;

label! {
    /// How a message ended.
    MessageOutcome {
        /// The backend answered 2xx to the end of data.
        Accepted = "accepted",
        /// 5xx, the backend's or the gateway's.
        Rejected = "rejected",
        /// 4xx, the backend's or the gateway's.
        Deferred = "deferred",
        /// The client went away before it heard an answer.
        Aborted = "aborted",
    }
}
