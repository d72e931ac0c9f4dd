//! The mail transaction as the client has asked for it: what was said, not yet what was granted.

use crate::smtp::ehlo::Extensions;
use crate::time::Millis;

use super::body::Content;
use super::chunk::Text;
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
    /// BODY=BINARYMIME: only BDAT may carry it (RFC 3030 section 3).
    pub(super) binary: bool,
    /// How far BDAT has come.
    pub(super) chunks: Chunks,
    /// For the log; gathers until the message is over.
    pub(super) report: Box<MessageReport>,
}

/// BDAT within one transaction (RFC 3030 section 2).
#[derive(Debug)]
pub(super) enum Chunks {
    /// None yet: DATA is still possible.
    None,
    /// A BDAT went to the backend.
    Started(Box<Started>),
    /// A chunk failed: only RSET helps.
    Broken,
}

/// A message that comes in chunks.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) content: Content,
    /// None: BODY=BINARYMIME, which is nobody's to look at.
    pub(super) text: Option<Text>,
    /// Octets so far.
    pub(super) size: u64,
    /// When the last of them must have come.
    pub(super) until: Millis,
}

impl Started {
    /// What stands before the message, if it begins with this or is over without an octet.
    pub(super) fn take_trace(&mut self, head: &[u8]) -> Vec<u8> {
        // Whether an LF follows a CR is not looked at in binary content, so a CR is never taken for an empty line there.
        let known = if self.text.is_some() { head } else { &head[..head.len().min(1)] };
        self.content.take_trace(known)
    }
}

impl Transaction {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
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
