//! Faults on demand: where in a session the sink errs, and how. Written `POINT=ACTION`, as in `eod=451`.
//!
//! A command that meets a fault other than a delay is not carried out, and a message is not kept: what the gateway hears
//! is what is true.

use std::str::FromStr;
use std::time::Duration;

/// One fault. Several at one point: the delays add up, then the first other action is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// At which command or moment.
    pub point: Point,
    /// What it does there instead of what it should.
    pub action: Action,
}

/// Where a sink errs. Every occurrence counts, so `rcpt` means each RCPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// As soon as the connection is accepted, before a PROXY header is read. A reply here is all the banner there is.
    Connect,
    /// In place of the banner.
    Banner,
    /// At EHLO and HELO.
    Ehlo,
    /// At XCLIENT.
    Xclient,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA, in place of 354.
    Data,
    /// At a message's first octets, before it is over: a reply here is one that nobody asked for.
    Body,
    /// At the end of a message: after the dot, or after the octets of the last BDAT.
    EndOfData,
    /// After the octets of each BDAT, the last included.
    Bdat,
    /// At QUIT.
    Quit,
}

/// How a sink errs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The connection is closed.
    Close,
    /// The connection is reset (RST).
    Reset,
    /// Nothing is said any more; the connection stays open.
    Hang,
    /// Half a reply, then the connection is closed.
    Half,
    /// A line that is no reply.
    Junk,
    /// This reply, 400 to 599. After 421 the connection is closed.
    Reply(u16),
    /// The proper reply, later.
    Delay(Duration),
}

/// The longest delay, so that a mistyped one does not look like a hang.
const DELAY_MS_MAX: u64 = 3_600_000;

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (point, action) = text
            .split_once('=')
            .ok_or_else(|| format!("\"{text}\" is no fault: write POINT=ACTION, for example eod=451"))?;
        Ok(Self { point: point.parse()?, action: action.parse()? })
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "connect" => Self::Connect,
            "banner" => Self::Banner,
            "ehlo" => Self::Ehlo,
            "xclient" => Self::Xclient,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            "body" => Self::Body,
            "eod" => Self::EndOfData,
            "bdat" => Self::Bdat,
            "quit" => Self::Quit,
            _ => {
                return Err(format!(
                    "\"{text}\" is no point of a session: write connect, banner, ehlo, xclient, mail, rcpt, data, body, \
                     eod, bdat or quit"
                ));
            }
        })
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "close" => return Ok(Self::Close),
            "reset" => return Ok(Self::Reset),
            "hang" => return Ok(Self::Hang),
            "half" => return Ok(Self::Half),
            "junk" => return Ok(Self::Junk),
            _ => {}
        }
        if let Some(delay) = text.strip_prefix("delay:") {
            return match delay.parse() {
                Ok(ms @ 0..=DELAY_MS_MAX) => Ok(Self::Delay(Duration::from_millis(ms))),
                _ => {
                    Err(format!("\"{delay}\" is no delay: write milliseconds, at most {DELAY_MS_MAX}, as in delay:250"))
                }
            };
        }
        match text.parse() {
            Ok(code @ 400..=599) => Ok(Self::Reply(code)),
            _ => Err(format!(
                "\"{text}\" is no action: write close, reset, hang, half, junk, delay:MILLISECONDS, or a reply code from \
                 400 to 599"
            )),
        }
    }
}

/// What is sent in place of a reply for [`Action::Junk`]: no code, not ASCII, but a whole line.
pub(super) const JUNK: &[u8] = b"\xff\xfe\x00 this is no reply\r\n";

impl Point {
    /// The half reply for [`Action::Half`]: several lines where the proper reply has several.
    pub(super) fn half_reply(self) -> &'static [u8] {
        match self {
            Self::Connect => b"2",
            Self::Banner => b"220 sink.loc",
            Self::Ehlo => b"250-sink.localhost\r\n250-PIPELI",
            Self::Xclient => b"22",
            Self::Data => b"354",
            Self::Quit => b"221 2.0",
            Self::Mail | Self::Rcpt | Self::Body | Self::EndOfData | Self::Bdat => b"250 2.",
        }
    }
}

/// The sum of the delays at `point`.
pub(super) fn delay_at(faults: &[Fault], point: Point) -> Duration {
    let delay = |fault: &Fault| match fault.action {
        Action::Delay(delay) if fault.point == point => delay,
        _ => Duration::ZERO,
    };
    faults.iter().map(delay).sum()
}

/// The first action at `point` that is no delay.
pub(super) fn action_at(faults: &[Fault], point: Point) -> Option<Action> {
    let here = |fault: &&Fault| fault.point == point && !matches!(fault.action, Action::Delay(_));
    faults.iter().find(here).map(|fault| fault.action)
}
