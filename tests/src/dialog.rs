//! Runs a transcript (`tests/dialogs/*.txt`) against the session core, without a socket.
//!
//! A transcript is what a mail administrator would read in a packet capture, a line a step:
//!
//! ```text
//! # A comment.
//! @ setting = value        see `settings`
//! C: EHLO client.example   the client sends this line (CRLF added); lines that follow each other are one packet
//! C> raw\r\n\0\x0b         the client sends these bytes; \{600:x} stands for 600 times x
//! S: 250 …                 the client receives this line; `…` at the end stands for any text;  S>> the same, raw
//! B+                       the gateway dials the backend, and the connection stands
//! B+ refused               … and there is none;   B+ hangs   … and nothing comes of it (yet)
//! B*                       the gateway begins TLS with the backend, and it stands;   B* why   … and it does not, for this reason
//! B* verified              … and it is the one that we want, as its certificate shows
//! C*                       TLS with the client, which the gateway has begun, stands;   C* why   … or does not;   C* hangs   … (yet)
//! B< 220 backend           the backend sends this line;  B<> the same, raw
//! B> MAIL FROM:<a@b.c>     the backend receives this line;  B>> the same, raw
//! B-                       the gateway closes the backend's connection;   B! the backend closes it
//! B~                       the backend takes no bytes from here on;   B~ off   … and takes them again
//! Q< pass                  what the gateway asked about a recipient is answered;   Q< 550 text   … with a refusal
//! S-                       the gateway closes the client's connection;    C! the client closes it;   C!! it breaks
//! S+                       the gateway greets, with `@ greeting = held`
//! T+ 300                   seconds pass;   T+ 300 stalled   … and the backend takes no bytes;   T+ 300 down   … and its server
//!                          was found down;   T+ 300 silent   … and says nothing to a health check either
//! D+                       the gateway drains;   D! its grace time is over
//! L: accepted 250          the log hears this, perhaps behind other things that are not asked for
//! --- what this one shows  begins a session of its own; what stands before the first such line opens each of them
//! ```
//!
//! Whatever the gateway does must be expected, and before anything else happens to it: a transcript in which a reply
//! comes too early fails as surely as one in which it does not come.

mod compare;
pub mod model;
pub mod play;
pub mod settings;
pub mod stage;

use std::iter::Peekable;

use smtp_gateway::session::ServerSeen;
use stage::Stage;

/// How a transcript's bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets {
    /// As the transcript groups them.
    Whole,
    /// Each byte in a packet of its own.
    Bytes,
}

/// A line with its number.
type Numbered<'a> = (usize, &'a str);

/// Runs every session of one transcript; the error says which lines failed, and how.
pub fn run(transcript: &str, packets: Packets) -> Result<(), String> {
    let failures: Vec<String> =
        sessions(transcript).iter().filter_map(|session| run_session(session, packets).err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// The sessions of a transcript, each with the lines that open it.
fn sessions(transcript: &str) -> Vec<Vec<Numbered<'_>>> {
    let mut parts: Vec<Vec<Numbered<'_>>> = vec![Vec::new()];
    for (index, line) in transcript.lines().enumerate() {
        if line.starts_with("---") {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push((index + 1, line));
        }
    }
    match parts.split_first() {
        Some((opening, rest)) if !rest.is_empty() => {
            rest.iter().map(|part| [opening.as_slice(), part.as_slice()].concat()).collect()
        }
        _ => parts,
    }
}

fn run_session(lines: &[Numbered<'_>], packets: Packets) -> Result<(), String> {
    let settings = settings::read(lines.iter().map(|(_, line)| *line))?;
    if packets == Packets::Bytes && settings.contains_key("whole_packets_only") {
        return Ok(());
    }
    let mut stage = Stage::new(&settings, packets)?;
    let end = lines.last().map_or(0, |(number, _)| *number);
    let mut lines = lines.iter().copied().peekable();
    while let Some((number, line)) = lines.next() {
        step(&mut stage, line, &mut lines).map_err(|error| format!("line {number}: `{line}`: {error}"))?;
    }
    stage.quiet().map_err(|error| format!("behind line {end}: {error}"))
}

fn step<'a>(
    stage: &mut Stage,
    line: &str,
    more: &mut Peekable<impl Iterator<Item = Numbered<'a>>>,
) -> Result<(), String> {
    if let Some(mut packet) = client_bytes(line)? {
        while let Some(next) = more.peek().map(|(_, next)| client_bytes(next)).transpose()?.flatten() {
            packet.extend(next);
            more.next();
        }
        stage.quiet()?;
        stage.client_sends(&packet);
        return Ok(());
    }
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    match mark {
        "" | "#" | "@" | "---" => return Ok(()),
        "S:" => return stage.expect_client_line(rest),
        "B>" => return stage.expect_backend_line(rest),
        "S>>" => return stage.expect_client_bytes(&unescape(rest)?),
        "B>>" => return stage.expect_backend_bytes(&unescape(rest)?),
        "B-" => return stage.expect_backend_closed(),
        "S-" => return stage.expect_client_closed(),
        "L:" => return stage.expect_event(rest),
        "B+" => return stage.dialled(rest),
        "B*" => return stage.secured(rest),
        "C*" => return stage.client_secured(rest),
        "Q<" => return stage.answered(rest),
        _ => stage.quiet()?,
    }
    match mark {
        "B<" => stage.backend_sends(&[rest.as_bytes(), b"\r\n"].concat()),
        "B<>" => stage.backend_sends(&unescape(rest)?),
        "B!" => stage.backend_closes(),
        "C!" => stage.client_closes(),
        "C!!" => stage.client_breaks(),
        "S+" => stage.greet(),
        "B~" => stage.stick(rest != "off"),
        "D+" => stage.drain(),
        "D!" => stage.drain_now(),
        "T+" => {
            let (seconds, how) = rest.split_once(' ').unwrap_or((rest, ""));
            let seen = ServerSeen { stalled: how == "stalled", down: how == "down", silent: how == "silent" };
            stage.time_passes_seeing(seconds.parse().map_err(|_| "seconds are needed")?, seen);
        }
        _ => return Err("no such step".to_owned()),
    }
    Ok(())
}

fn client_bytes(line: &str) -> Result<Option<Vec<u8>>, String> {
    if let Some(text) = line.strip_prefix("C:") {
        return Ok(Some([text.strip_prefix(' ').unwrap_or(text).as_bytes(), b"\r\n"].concat()));
    }
    line.strip_prefix("C> ").map(unescape).transpose()
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut rest = text;
    unescape_until(&mut rest, None)
}

/// Up to `end`, which is consumed, or to the end of the text.
fn unescape_until(rest: &mut &str, end: Option<char>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(c) = take_char(rest) {
        match c {
            '\\' => unescape_one(rest, &mut bytes)?,
            c if Some(c) == end => return Ok(bytes),
            c => bytes.extend(c.to_string().bytes()),
        }
    }
    if end.is_some() { Err("\\{ without }".to_owned()) } else { Ok(bytes) }
}

fn unescape_one(rest: &mut &str, bytes: &mut Vec<u8>) -> Result<(), String> {
    match take_char(rest).ok_or("a lone \\ at the end")? {
        'r' => bytes.push(b'\r'),
        'n' => bytes.push(b'\n'),
        't' => bytes.push(b'\t'),
        '0' => bytes.push(0),
        '\\' => bytes.push(b'\\'),
        'x' => {
            let digits = rest.get(..2).ok_or("\\x needs two digits")?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| format!("bad escape \\x{digits}"))?);
            *rest = &rest[2..];
        }
        '{' => {
            let (count, behind) = rest.split_once(':').ok_or("\\{count:text} is needed")?;
            let count = count.parse().map_err(|_| format!("bad count {count}"))?;
            *rest = behind;
            bytes.extend(unescape_until(rest, Some('}'))?.repeat(count));
        }
        other => return Err(format!("bad escape \\{other}")),
    }
    Ok(())
}

fn take_char(rest: &mut &str) -> Option<char> {
    let c = rest.chars().next()?;
    *rest = &rest[c.len_utf8()..];
    Some(c)
}
