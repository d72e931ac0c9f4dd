//! The backend's side of a session: how far its own session has come, and what is told to open it.

use std::net::SocketAddr;

use crate::identity::xclient::{ClientName, Ipv6Form};
use crate::opening::Opening;
use crate::policy::relay_guard::Hold;
use crate::route::RouteId;
use crate::smtp::ehlo::Extensions;
use crate::time::{Millis, WallClock};

use super::question::Ticket;
use super::words::Refusal;

/// A connection to a server of the backend.
#[derive(Debug, Clone, Copy)]
pub struct Connected {
    /// The address of the gateway that the client connected to.
    pub destination: SocketAddr,
    /// How the server wants IPv6 addresses written in XCLIENT.
    pub ipv6_form: Ipv6Form,
    /// Where others of its kind are left: when it must have opened its session.
    pub open_by: Option<Millis>,
    /// Where none is: when it must have, if it turns out that it answers nobody.
    pub answers_by: Millis,
    /// Whether nobody else hears what is said on it without TLS, for the server is on this machine.
    pub is_on_this_host: bool,
}

/// The backend half.
#[derive(Debug)]
pub(super) struct BackendHalf {
    pub(super) state: Backend,
    /// The client's host name, which some backends are told.
    pub(super) name: Name,
    /// Whether TLS stands on its last connection.
    pub(super) is_secured: bool,
    /// Whether nobody else hears what is said on it without TLS, for the server is on this machine.
    pub(super) is_on_this_host: bool,
    /// The date, as of the last connection, where a trace header needs it.
    pub(super) clock: Option<Box<WallClock>>,
    /// Which of the listener's backends it is.
    pub(super) place: usize,
    /// The route that led there last, where there are several.
    pub(super) route: RouteId,
    /// Where there are several: what each may be given.
    pub(super) holds: Box<[Hold]>,
    /// When it must have answered; meaningful while it owes something.
    pub(super) deadline: Millis,
    /// When it is asked whether its server is down; meaningful while the session opens, and while an answer is awaited that another
    /// may give.
    pub(super) doubted_at: Millis,
    /// It was asked, and nothing has come since.
    pub(super) is_doubted: bool,
}

/// The backend's session, as far as it has come.
#[derive(Debug)]
pub(super) enum Backend {
    /// No connection, and none under way.
    None,
    /// On the way to a session.
    Opening(Box<Held>),
    /// Commands may flow.
    Ready(Extensions),
}

/// A session that is being opened, and what waits for it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) opening: Opening,
    /// Commands, encoded.
    pub(super) commands: Vec<u8>,
    /// TLS stands, and the backend's certificate is that of whom we want.
    pub(super) verified: bool,
    /// The connection, if one stands: what comes before is another's.
    pub(super) connected: Option<Connected>,
    /// Why it did not open with the server that was tried last.
    pub(super) refusal: Option<Box<Refusal>>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self { opening: Opening::new(), commands: Vec::new(), verified: false, connected: None, refusal: None }
    }
}

/// The client's host name.
#[derive(Debug, Default)]
pub(super) enum Name {
    #[default]
    Unasked,
    Asked(Ticket),
    Known(ClientName),
}

impl BackendHalf {
    pub(super) fn new(now: Millis) -> Self {
        Self {
            state: Backend::None,
            name: Name::Unasked,
            is_secured: false,
            is_on_this_host: false,
            clock: None,
            place: 0,
            route: RouteId::NONE,
            holds: Box::default(),
            deadline: now,
            doubted_at: now,
            is_doubted: false,
        }
    }
}

impl Backend {
    /// Whether the session is on its way.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self, Self::Opening(_))
    }

    /// Whether it is on its way, and no connection stands.
    pub(super) fn is_redialling(&self) -> bool {
        matches!(self, Self::Opening(held) if held.connected.is_none())
    }

    /// Where commands wait while the session opens.
    pub(super) fn held_mut(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Opening(held) => Some(&mut held.commands),
            Self::None | Self::Ready(_) => None,
        }
    }

    /// Bytes that wait.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Opening(held) => held.commands.len(),
            Self::None | Self::Ready(_) => 0,
        }
    }
}
