//! What two processes of one gateway say to each other when one takes the other's place.
//!
//! ```text
//! successor                     the gateway that runs
//!   take over, version ──────►
//!                      ◄────── offer, with every socket
//!   (reads its configuration, binds what is new, asks backends, gives its privileges up)
//!   ready              ──────►
//!                               (writes neither maps nor journal any more)
//!                      ◄────── state
//!   (takes maps, cards, bans, reputation and counters)
//!   taken              ──────►
//!                      ◄────── go
//!   (accepts)
//!   serving            ──────►
//!                               (stops accepting, and drains)
//!                      ◄────── news, every second until it ends
//! ```
//!
//! Both have the listening sockets, so at every moment somebody accepts. Until `serving`, whatever goes wrong (a word that does
//! not come in time, an end of the connection) ends the successor, and the other goes on as if nothing had been. Another
//! version of these words is another [`VERSION`], and takes a restart.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::observe::counts::Counts;
use crate::observe::events::Event;
use crate::policy::reputation::ReputationState;
use crate::proof::LastProof;
use crate::tls::ExportedKeys;

use super::journal::Entry;
use super::log_levels::OtherLevel;

/// Of these words. Where they, or what they hold, mean something else, it grows.
pub(super) const VERSION: u32 = 2;

/// What there is to take over. Descriptors come with it: standard output and error, the control socket, the metrics listener's
/// if there is one, and each listener's queues.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) version: u32,
    /// Where the control socket is.
    pub(super) control: PathBuf,
    /// `metrics.address`
    pub(super) metrics: Option<SocketAddr>,
    pub(super) listeners: Vec<OfferedListener>,
    pub(super) tickets: Option<ExportedKeys>,
    /// Whether a kernel side is at work.
    pub(super) kernel: bool,
}

/// One listener, as [`Listener`](crate::accept::Listener).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfferedListener {
    pub(super) configured: SocketAddr,
    pub(super) address: SocketAddr,
    pub(super) queues: usize,
}

/// A step, said by the one or the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub(super) enum Word {
    Ready,
    Taken,
    Go,
    Serving(Serving),
}

/// What the successor has taken, and what not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Serving {
    /// The control socket's file.
    pub(super) control: bool,
    /// The cards.
    pub(super) kernel: bool,
    /// Which of the listeners it has no use for, as places in the offer; who waits there is the other's to serve.
    #[serde(default)]
    pub(super) left: Vec<usize>,
}

/// All that a gateway knows and must not forget.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) counts: Counts,
    pub(super) bans: Vec<Entry>,
    pub(super) reputation: ReputationState,
    /// By the backends' names.
    pub(super) proofs: Vec<(String, LastProof)>,
    /// SYNs that came to nothing, as `status` shows them.
    pub(super) lost_before_accept: u64,
    /// What happened lately.
    pub(super) events: Vec<Event>,
    /// What stands in for the log's configured level.
    pub(super) log_level: Option<OtherLevel>,
}

/// What the sessions of the process that goes have brought since it told last.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct News {
    pub(super) counts: Counts,
    pub(super) bans: Vec<Entry>,
    pub(super) events: Vec<Event>,
}
