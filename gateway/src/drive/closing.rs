//! How far the end of a session is.

use crate::time::Millis;
use crate::time::clock::now;

/// How long a client may take none of what is left for it, and how long one whose session was ended for it may take to
/// read why, in milliseconds.
const LINGER_MS: u64 = 2000;
/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// What is left for the client is being written.
    Flushing {
        until: Millis,
    },
    /// The client is being heard out, so that its bytes do not reset the connection under the last reply.
    Lingering {
        until: Millis,
        bytes: u32,
    },
}

impl Closing {
    /// The session is over; the client has yet to hear of it.
    pub(super) fn begin() -> Self {
        Self::Flushing { until: linger_end() }
    }
}

pub(super) fn linger_end() -> Millis {
    Millis(now().0 + LINGER_MS)
}
