//! Commands with their parameters (RFC 5321 section 4.1.1 and the extensions offered).
//!
//! A line becomes a borrowed view, or the reply it deserves. Nothing that this module accepts can hold a byte that ends a
//! line or begins another command, so what the encoders write is one command whatever the client sent.

use std::borrow::Cow;
use std::fmt;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// What may be a secret: it is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a str);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A command as a client may send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO with what the client calls itself: not empty, at most 255 bytes, no control characters; and nothing else is
    /// sure. [`is_plain_hello`] tells what may be sent on as it is. Bytes that are no UTF-8 stand there as U+FFFD.
    Ehlo(Cow<'a, str>),
    /// HELO, likewise.
    Helo(Cow<'a, str>),
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
    /// AUTH with what stands behind it, for [`Auth::parse`](super::auth::Auth::parse).
    Auth(Secret<'a>),
    /// XCLIENT, XFORWARD, PROXY: a client that claims to be somebody else.
    IdentityClaim,
    /// A method of HTTP: a browser's or another server's request that somebody aims here, so that what it carries is taken for
    /// commands.
    Http,
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
    /// Whether it was a BDAT: how many octets follow is unknown, so its transaction cannot go on.
    pub is_bdat: bool,
}

/// Longest EHLO or HELO argument in bytes.
const HELLO_MAX: usize = 255;

pub(super) const fn fault(code: u16, enhanced: EnhancedCode, text: &'static str) -> CommandError {
    CommandError { code, enhanced, text, is_bdat: false }
}

const BAD_BYTES: CommandError = fault(500, EnhancedCode(5, 5, 2), "Command is no UTF-8, or holds control characters");
const NO_ARGUMENT_ALLOWED: CommandError = fault(501, EnhancedCode(5, 5, 4), "This command takes no argument");
const ARGUMENT_NEEDED: CommandError = fault(501, EnhancedCode(5, 5, 4), "This command needs an argument");
const BAD_HELLO: CommandError =
    fault(501, EnhancedCode(5, 5, 4), "A name is needed, of at most 255 bytes and without control characters");
const UTF8_ARGUMENT: CommandError = fault(553, EnhancedCode(5, 6, 7), "Non-ASCII characters need SMTPUTF8");
const MAIL_SYNTAX: CommandError = fault(501, EnhancedCode(5, 5, 4), "Syntax: MAIL FROM:<address> [parameters]");
const RCPT_SYNTAX: CommandError = fault(501, EnhancedCode(5, 5, 4), "Syntax: RCPT TO:<address> [parameters]");
const BAD_SENDER: CommandError = fault(501, EnhancedCode(5, 1, 7), "Sender is no <local-part@domain>");
const BAD_RECIPIENT: CommandError = fault(501, EnhancedCode(5, 1, 3), "Recipient is no <local-part@domain>");
const BDAT_SYNTAX: CommandError =
    CommandError { is_bdat: true, ..fault(501, EnhancedCode(5, 5, 4), "Syntax: BDAT octets [LAST]") };

/// Parses one line without its CRLF.
///
/// # Errors
/// A known verb with an argument that it does not take, or bytes that no command may hold; an unknown verb is
/// [`Command::Unknown`].
pub fn parse_command(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let Ok(text) = std::str::from_utf8(line) else { return hello_in_another_charset(line) };
    if holds_control(text) {
        return Err(BAD_BYTES);
    }
    let text = text.trim_end_matches(is_blank);
    let (verb, argument) = text.split_at(text.bytes().position(|byte| is_blank(byte.into())).unwrap_or(text.len()));
    let argument = argument.trim_start_matches(is_blank);
    let Some(verb) = known_verb(verb) else {
        return Ok(if HTTP_METHODS.contains(&verb) { Command::Http } else { Command::Unknown });
    };
    let bare = |command| if argument.is_empty() { Ok(command) } else { Err(NO_ARGUMENT_ALLOWED) };
    match verb {
        "MAIL" => parse_mail(argument),
        "RCPT" => parse_rcpt(argument),
        "EHLO" => parse_hello(argument).map(Command::Ehlo),
        "HELO" => parse_hello(argument).map(Command::Helo),
        "DATA" => bare(Command::Data),
        "RSET" => bare(Command::Rset),
        "QUIT" => bare(Command::Quit),
        "STARTTLS" => bare(Command::StartTls),
        "BDAT" => parse_bdat(argument).ok_or(BDAT_SYNTAX),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" => parse_lookup(argument, Command::Vrfy),
        "EXPN" => parse_lookup(argument, Command::Expn),
        "AUTH" => Ok(Command::Auth(Secret(argument))),
        _ => Ok(Command::IdentityClaim),
    }
}

/// RFC 9110 section 9.1.
const HTTP_METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

fn known_verb(verb: &str) -> Option<&'static str> {
    const VERBS: [&str; 17] = [
        "MAIL", "RCPT", "DATA", "EHLO", "HELO", "QUIT", "RSET", "NOOP", "BDAT", "VRFY", "EXPN", "HELP", "STARTTLS",
        "AUTH", "XCLIENT", "XFORWARD", "PROXY",
    ];
    VERBS.into_iter().find(|known| verb.eq_ignore_ascii_case(known))
}

fn parse_mail(argument: &str) -> Result<Command<'_>, CommandError> {
    let path = strip_keyword(argument, "FROM:").ok_or(MAIL_SYNTAX)?;
    let (path, rest) = ReversePath::parse(path).ok_or(BAD_SENDER)?;
    let params = Params::parse(rest).ok_or(MAIL_SYNTAX)?;
    Ok(Command::Mail { path, params })
}

fn parse_rcpt(argument: &str) -> Result<Command<'_>, CommandError> {
    let path = strip_keyword(argument, "TO:").ok_or(RCPT_SYNTAX)?;
    let (path, rest) = ForwardPath::parse(path).ok_or(BAD_RECIPIENT)?;
    let params = Params::parse(rest).ok_or(RCPT_SYNTAX)?;
    Ok(Command::Rcpt { path, params })
}

/// White space behind the colon is not SMTP, yet common enough to be let pass; it is not sent on.
fn strip_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches(is_blank))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// Whether a control other than the tab is in it. Nearly all text is ASCII, and looked at many octets at once then.
fn holds_control(text: &str) -> bool {
    if text.is_ascii() {
        let is_bad = |byte: u8| byte.is_ascii_control() & (byte != b'\t');
        return text.bytes().fold(false, |any, byte| any | is_bad(byte));
    }
    text.chars().any(|c| is_control(c) && c != '\t')
}

/// What ends a line or steers a terminal somewhere: C0, C1, and Unicode's own separators of lines and paragraphs.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Not only host names: clients name themselves in many ways.
fn parse_hello(argument: &str) -> Result<Cow<'_, str>, CommandError> {
    let good = !argument.is_empty() && argument.len() <= HELLO_MAX && !argument.chars().any(is_control);
    if good { Ok(argument.into()) } else { Err(BAD_HELLO) }
}

/// Devices name themselves in the charset they were made for. No other command may.
fn hello_in_another_charset(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let (verb, name) = line.split_at_checked(5).ok_or(BAD_BYTES)?;
    let esmtp = verb.eq_ignore_ascii_case(b"EHLO ");
    if !esmtp && !verb.eq_ignore_ascii_case(b"HELO ") {
        return Err(BAD_BYTES);
    }
    let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
    parse_hello(&name)?;
    Ok(if esmtp { Command::Ehlo(name.into()) } else { Command::Helo(name.into()) })
}

/// Whether a name can be told to the backend as it is: no byte that could begin something else there.
pub fn is_plain_hello(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte))
}

fn parse_bdat(argument: &str) -> Option<Command<'static>> {
    let mut words = argument.split_ascii_whitespace();
    let digits = words.next()?;
    let last = words.next();
    let well_formed = digits.bytes().all(|byte| byte.is_ascii_digit())
        && last.is_none_or(|word| word.eq_ignore_ascii_case("LAST"))
        && words.next().is_none();
    well_formed.then_some(())?;
    Some(Command::Bdat { length: digits.parse().ok()?, last: last.is_some() })
}

fn parse_lookup<'a>(argument: &'a str, command: Command<'a>) -> Result<Command<'a>, CommandError> {
    match argument {
        "" => Err(ARGUMENT_NEEDED),
        _ if !argument.is_ascii() => Err(UTF8_ARGUMENT),
        _ => Ok(command),
    }
}

impl<'a> Params<'a> {
    /// What stands behind a path: nothing, or white space and well-formed parameters.
    fn parse(rest: &'a str) -> Option<Self> {
        if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
            return None;
        }
        let params = Self { text: rest.trim_ascii() };
        params.iter().all(|param| param.is_well_formed()).then_some(params)
    }
}

impl Param<'_> {
    /// esmtp-param of RFC 5321 section 4.1.2, with the UTF-8 of RFC 6531.
    fn is_well_formed(&self) -> bool {
        let mut keyword = self.keyword.bytes();
        keyword.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && keyword.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && self.value.is_none_or(|value| !value.is_empty() && !value.contains('='))
    }
}

/// Appends MAIL with these parameters, CRLF included.
pub fn encode_mail<'a>(path: &ReversePath<'_>, params: impl Iterator<Item = Param<'a>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"MAIL FROM:<");
    path.write_to(out);
    encode_params(params, out);
}

/// Appends RCPT with these parameters, CRLF included.
pub fn encode_rcpt<'a>(path: &ForwardPath<'_>, params: impl Iterator<Item = Param<'a>>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"RCPT TO:<");
    path.write_to(out);
    encode_params(params, out);
}

fn encode_params<'a>(params: impl Iterator<Item = Param<'a>>, out: &mut Vec<u8>) {
    out.push(b'>');
    for Param { keyword, value } in params {
        out.push(b' ');
        out.extend(keyword.bytes().map(|byte| byte.to_ascii_uppercase()));
        if let Some(value) = value {
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends BDAT, CRLF included; `length` octets must follow.
pub fn encode_bdat(length: u64, last: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to memory cannot fail.
    let _ = write!(out, "BDAT {length}{}\r\n", if last { " LAST" } else { "" });
}

#[cfg(test)]
mod tests;
