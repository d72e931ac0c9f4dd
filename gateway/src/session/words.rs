//! The gateway's own words, and refusals in anybody's.

use crate::smtp::reply::{EnhancedCode, Reply, encode_reply};

/// A reply of the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words(pub(super) u16, pub(super) EnhancedCode, pub(super) &'static str);

pub(super) const OK: Words = Words(250, EnhancedCode(2, 0, 0), "Ok");
/// RFC 4954 section 6.
pub(super) const AUTH_TOO_LONG: Words = Words(500, EnhancedCode(5, 5, 6), "The line is too long for AUTH");
pub(super) const NO_MAIL: Words = Words(503, EnhancedCode(5, 5, 1), "MAIL first");
pub(super) const NO_RECIPIENTS: Words = Words(554, EnhancedCode(5, 5, 1), "No valid recipients");
pub(super) const TOO_LARGE: Words = Words(552, EnhancedCode(5, 3, 4), "The message is larger than may be");
pub(super) const NO_IDENTITY: Words =
    Words(451, EnhancedCode(4, 3, 5), "The mail server cannot be told who you are; try again later");
pub(super) const HELD: Words =
    Words(451, EnhancedCode(4, 3, 5), "The mail server must be mended first; try again later");
pub(super) const CONFUSED: Words =
    Words(451, EnhancedCode(4, 3, 0), "The mail server's answer was not understood; try again later");
pub(super) const STALE: Words =
    Words(451, EnhancedCode(4, 3, 0), "The mail server's abilities have changed; try again");
pub(super) const LOST: Words =
    Words(451, EnhancedCode(4, 4, 2), "The connection to the mail server was lost; try again later");
/// To who begins a message while all sessions together hold as much as they may.
pub(super) const CRAMMED: Words =
    Words(452, EnhancedCode(4, 3, 1), "Too much mail is on its way here; try again later");
/// To who falls silent on what is no whole line.
pub(super) const UNENDED_LINE: Words =
    Words(500, EnhancedCode(5, 5, 2), "A line ends in CRLF, and nothing but LF or CR came; try again with CRLF");
/// To who falls silent behind what looks like the end of a message and is none.
pub(super) const UNENDED_MESSAGE: Words =
    Words(550, EnhancedCode(5, 6, 0), "A message ends in CRLF . CRLF, and only LF or CR came around the dot");
/// To who sends what is not waited for to end.
pub(super) const ENDLESS_LINE: Words = Words(421, EnhancedCode(4, 7, 0), "Line without end");
pub(super) const ENDLESS_MESSAGE: Words = Words(421, EnhancedCode(4, 7, 0), "The message goes on far past the limit");
/// To what belongs to a transaction that was lost with the backend.
pub(super) const TRANSACTION_LOST: Words =
    Words(451, EnhancedCode(4, 4, 2), "The mail server's connection was lost; start the transaction again");

impl Words {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let Self(code, enhanced, text) = self;
        encode_reply(code, Some(enhanced), text, out);
    }
}

/// A refusal in words that are the backend's, or the gateway's own about the backend.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) text: String,
    pub(super) encoded: Box<[u8]>,
}

impl Refusal {
    pub(super) fn from_reply(reply: &Reply<'_>) -> Self {
        let mut encoded = Vec::new();
        reply.encode_into(false, &mut encoded);
        Self { code: reply.code, text: reply.text().into_owned(), encoded: encoded.into() }
    }

    pub(super) fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// Whether it is a reply to AUTH as it stands (RFC 4954 section 6).
    pub(super) fn answers_auth(&self) -> bool {
        self.is_permanent() || self.code == 454
    }
}

impl From<Words> for Refusal {
    fn from(words: Words) -> Self {
        let mut encoded = Vec::new();
        words.encode(&mut encoded);
        let Words(code, enhanced, text) = words;
        Self { code, text: format!("{enhanced} {text}"), encoded: encoded.into() }
    }
}
