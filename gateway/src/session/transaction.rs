//! The mail transaction as the client has asked for it: what was said, not yet what was granted.

use crate::smtp::ehlo::Extensions;

use super::chunks::{Chunks, Started};
use super::kept_envelope::KeptEnvelope;
use super::report::MessageReport;

/// MAIL to end of data.
#[derive(Debug)]
pub(super) enum Transaction {
    /// Between transactions.
    None,
    /// MAIL was sent on.
    Open(Box<Open>),
    /// The backend was lost while it was open: everything but RSET, MAIL, EHLO and QUIT is answered 451.
    Lost,
}

/// A transaction that MAIL opened.
#[derive(Debug)]
pub(super) struct Open {
    /// Extensions the client used, which the backend's session must offer.
    pub(super) needs: Extensions,
    /// RCPT commands, refused ones too.
    pub(super) asked: u32,
    /// RCPT commands sent on.
    pub(super) forwarded: u32,
    /// RCPT commands the backend accepted.
    pub(super) accepted: u32,
    /// The relay guard refused one.
    pub(super) relay_denied: bool,
    /// Where the listener leads to several backends.
    pub(super) routed: Option<Box<Routed>>,
    /// Where the backend has several servers: what this one was told, until the message begins.
    pub(super) kept: Option<Box<KeptEnvelope>>,
    /// BODY=BINARYMIME: only BDAT may carry it (RFC 3030 section 3).
    pub(super) binary: bool,
    /// How far BDAT has come.
    pub(super) chunks: Chunks,
    /// For the log; gathers until the message is over.
    pub(super) report: Box<MessageReport>,
}

/// A transaction whose backend its first recipient decides.
#[derive(Debug)]
pub(super) struct Routed {
    /// MAIL, encoded, which the gateway has answered.
    pub(super) mail: Box<[u8]>,
    /// The domain of its reverse-path, if it has one by name.
    pub(super) sender: Option<Box<str>>,
    /// Which of the listener's backends it is, once a recipient was sent there.
    pub(super) place: Option<usize>,
}

impl Open {
    /// What was gathered until the message itself comes.
    pub(super) fn into_report(self) -> Box<MessageReport> {
        let Self { mut report, accepted, .. } = self;
        report.recipients_accepted = accepted;
        report
    }
}

impl Transaction {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn open(&self) -> Option<&Open> {
        match self {
            Self::Open(open) => Some(open),
            Self::None | Self::Lost => None,
        }
    }

    pub(super) fn open_mut(&mut self) -> Option<&mut Open> {
        match self {
            Self::Open(open) => Some(open),
            Self::None | Self::Lost => None,
        }
    }

    /// The message that comes in chunks, if one was begun.
    pub(super) fn started_mut(&mut self) -> Option<&mut Started> {
        match &mut self.open_mut()?.chunks {
            Chunks::Started(started) => Some(started),
            Chunks::None | Chunks::Broken => None,
        }
    }

    /// Ends it, however it stood.
    pub(super) fn take(&mut self) -> Option<Box<Open>> {
        match std::mem::replace(self, Self::None) {
            Self::Open(open) => Some(open),
            Self::None | Self::Lost => None,
        }
    }
}
