//! Commands with their parameters (RFC 5321 section 4.1.1 and the extensions offered).

use super::address::{ForwardPath, ReversePath};
use super::reply::EnhancedCode;

/// One `KEYWORD[=value]` behind MAIL or RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// The keyword as written; compare without case.
    pub keyword: &'a str,
    /// The value, if there was a `=`.
    pub value: Option<&'a str>,
}

/// The parameters behind MAIL or RCPT, each checked to be well-formed when the command was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params<'a> {
    /// The text behind the path, one space between parameters, none at the ends.
    text: &'a str,
}

impl<'a> Params<'a> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// In the order written.
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        self.text.split_ascii_whitespace().map(|word| match word.split_once('=') {
            Some((keyword, value)) => Param { keyword, value: Some(value) },
            None => Param { keyword: word, value: None },
        })
    }
}

/// A command as a client may send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO with the client's name or literal, validated and bounded to 255 bytes of printable ASCII without spaces.
    Ehlo(&'a str),
    /// HELO, likewise.
    Helo(&'a str),
    /// MAIL FROM.
    Mail {
        /// Where bounces go.
        path: ReversePath<'a>,
        /// Its parameters.
        params: Params<'a>,
    },
    /// RCPT TO.
    Rcpt {
        /// The recipient.
        path: ForwardPath<'a>,
        /// Its parameters.
        params: Params<'a>,
    },
    /// DATA.
    Data,
    /// BDAT (RFC 3030): this many octets follow.
    Bdat {
        /// Octets that follow the CRLF.
        length: u64,
        /// Whether the message ends with them.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, its argument ignored.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY, its argument unparsed (non-ASCII without SMTPUTF8 is already refused).
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// AUTH, unparsed: it is refused in this version.
    Auth,
    /// XCLIENT, XFORWARD, PROXY: a client that claims to be somebody else.
    IdentityClaim,
    /// A verb that is none of these.
    Unknown,
}

/// A command that cannot be used: what to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandError {
    /// SMTP reply code.
    pub code: u16,
    /// Enhanced status code (RFC 3463).
    pub enhanced: EnhancedCode,
    /// What is wrong, in words for the reply line.
    pub text: &'static str,
    /// Which command it was meant to be, where that matters to the session.
    pub verb: Verb,
}

/// The verbs whose failure changes what the session may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// BDAT: the length is unknown, so the transaction cannot go on.
    Bdat,
    /// Any other.
    Other,
}

/// Parses one line without its CRLF.
pub fn parse_command(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let _ = line;
    todo!()
}
