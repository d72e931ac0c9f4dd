//! Commands: one line in, one reply out.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Chunk, Envelope, Flow, Session, State};
use crate::sink::dots::Dots;
use crate::sink::event::{Denied, Event};
use crate::sink::fault::Point;
use crate::sink::message::{Incoming, SIZE_MAX};
use crate::sink::path::{PathArgument, PathFault, is_xtext};
use crate::sink::session::Farewell;
use crate::sink::xclient;

/// The most recipients of one message.
const RECIPIENTS_MAX: usize = 1000;

const OK: &[u8] = b"250 2.0.0 Ok\r\n";
const NO_MAIL: &[u8] = b"503 5.5.1 MAIL first\r\n";
const NO_RECIPIENT: &[u8] = b"503 5.5.1 No recipient was accepted\r\n";
const NEEDS_SMTPUTF8: &[u8] = b"553 5.6.7 The address needs SMTPUTF8\r\n";
const BAD_PARAMETER: &[u8] = b"555 5.5.4 Unknown or malformed parameter\r\n";

/// A command's reply, or what is to be done instead.
type Answer = ControlFlow<Flow, Result<&'static [u8], &'static [u8]>>;

impl Session {
    /// Carries out one command. `line` comes without its CRLF.
    pub(super) fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> ControlFlow<Flow> {
        if memchr::memchr3(b'\r', b'\n', 0, line).is_some() {
            self.error(b"500 5.5.2 CR, LF or NUL within a command\r\n", out);
            return ControlFlow::Continue(());
        }
        let Ok(line) = std::str::from_utf8(line) else {
            self.error(b"501 5.5.2 Not UTF-8\r\n", out);
            return ControlFlow::Continue(());
        };
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match self.dispatch(verb, argument, out)? {
            Ok(reply) => out.extend_from_slice(reply),
            Err(reply) => self.error(reply, out),
        }
        ControlFlow::Continue(())
    }

    fn dispatch(&mut self, verb: &str, argument: &str, out: &mut Vec<u8>) -> Answer {
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        if is("QUIT") {
            return self.quit(argument, out);
        }
        if self.unwelcome {
            return refuse(b"503 5.5.1 The banner said no; QUIT\r\n");
        }
        if is("MAIL") {
            self.at(Point::Mail, out, |session| session.mail(argument))
        } else if is("RCPT") {
            self.at(Point::Rcpt, out, |session| session.rcpt(argument))
        } else if is("DATA") {
            self.at(Point::Data, out, |session| session.data(argument))
        } else if is("BDAT") {
            self.bdat(argument, out)
        } else if is("EHLO") || is("HELO") {
            self.hello(is("EHLO"), argument, out)
        } else if is("XCLIENT") {
            self.xclient(argument, out)
        } else if is("RSET") {
            self.rset(argument)
        } else if is("NOOP") {
            accept(OK)
        } else if is("VRFY") {
            accept(b"252 2.0.0 Try and see\r\n")
        } else {
            refuse(b"500 5.5.2 Unknown command\r\n")
        }
    }

    /// Carries out `command` unless a fault is to be done instead.
    fn at(
        &mut self,
        point: Point,
        out: &mut Vec<u8>,
        command: impl FnOnce(&mut Self) -> Result<&'static [u8], &'static [u8]>,
    ) -> Answer {
        match self.fault(point, out)? {
            true => accept(b""),
            false => ControlFlow::Continue(command(self)),
        }
    }

    fn quit(&mut self, argument: &str, out: &mut Vec<u8>) -> Answer {
        if !argument.is_empty() {
            return refuse(b"501 5.5.4 QUIT takes no argument\r\n");
        }
        if self.fault(Point::Quit, out)? {
            return accept(b"");
        }
        out.extend_from_slice(b"221 2.0.0 Bye\r\n");
        ControlFlow::Break(Flow::End(Farewell::Close))
    }

    fn rset(&mut self, argument: &str) -> Answer {
        if !argument.is_empty() {
            return refuse(b"501 5.5.4 RSET takes no argument\r\n");
        }
        self.reset();
        accept(OK)
    }

    fn hello(&mut self, esmtp: bool, argument: &str, out: &mut Vec<u8>) -> Answer {
        if self.fault(Point::Ehlo, out)? {
            return accept(b"");
        }
        let name = argument.trim_matches(' ');
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_graphic()) {
            return refuse(b"501 5.5.4 A host name, please\r\n");
        }
        self.reset();
        self.helo.clear();
        self.helo.push_str(name);
        self.esmtp = esmtp;
        let shared = &self.shared;
        out.extend_from_slice(if esmtp { shared.ehlo(shared.may_xclient(self.client.believed)) } else { &shared.helo });
        accept(b"")
    }

    fn xclient(&mut self, argument: &str, out: &mut Vec<u8>) -> Answer {
        if !self.shared.may_xclient(self.client.believed) {
            return refuse(b"550 5.7.0 XCLIENT is not for you\r\n");
        }
        if self.envelope.is_some() {
            return refuse(b"503 5.5.1 A transaction is open\r\n");
        }
        if self.fault(Point::Xclient, out)? {
            return accept(b"");
        }
        match xclient::apply(&self.client, argument) {
            Err(reply) => refuse(reply),
            Ok(client) => {
                self.client = Arc::new(client);
                self.helo.clear();
                self.announce();
                out.extend_from_slice(&self.shared.banner);
                accept(b"")
            }
        }
    }

    fn mail(&mut self, argument: &str) -> Result<&'static [u8], &'static [u8]> {
        if self.helo.is_empty() {
            return Err(b"503 5.5.1 EHLO first\r\n");
        }
        if self.envelope.is_some() {
            return Err(b"503 5.5.1 A transaction is open\r\n");
        }
        if !self.announced {
            self.announce();
        }
        let path = path(argument, "FROM:", b"501 5.5.4 Syntax: MAIL FROM:<address>\r\n")?;
        if !path.mailbox.is_empty() && path.domain().is_none() {
            return Err(b"501 5.1.7 Bad sender address\r\n");
        }
        let mut smtputf8 = false;
        for (keyword, value) in path.parameters() {
            smtputf8 |= self.mail_parameter(&keyword.to_ascii_uppercase(), value)?;
        }
        if !path.mailbox.is_ascii() && !smtputf8 {
            return Err(NEEDS_SMTPUTF8);
        }
        let from = if self.keeps_envelope() { path.mailbox.to_owned() } else { String::new() };
        self.envelope = Some(Envelope { from, smtputf8, ..Envelope::default() });
        Ok(b"250 2.1.0 Ok\r\n")
    }

    /// Judges a parameter of MAIL. Returns whether it is SMTPUTF8.
    fn mail_parameter(&self, keyword: &str, value: Option<&str>) -> Result<bool, &'static [u8]> {
        let is = |text: &str, choices: [&str; 2]| choices.iter().any(|choice| choice.eq_ignore_ascii_case(text));
        match (keyword, value) {
            _ if !self.esmtp => Err(BAD_PARAMETER),
            ("SIZE", Some(size)) => match size.parse() {
                Ok(0..=SIZE_MAX) if !size.starts_with('+') => Ok(false),
                Ok(_) => Err(b"552 5.3.4 The message is too big\r\n"),
                Err(_) => Err(BAD_PARAMETER),
            },
            ("BODY", Some(body)) if is(body, ["7BIT", "8BITMIME"]) => Ok(false),
            ("RET", Some(ret)) if is(ret, ["FULL", "HDRS"]) => Ok(false),
            ("ENVID", Some(envid)) if !envid.is_empty() && is_xtext(envid) => Ok(false),
            ("SMTPUTF8", None) => Ok(true),
            _ => Err(BAD_PARAMETER),
        }
    }

    fn rcpt(&mut self, argument: &str) -> Result<&'static [u8], &'static [u8]> {
        let Some(envelope) = self.envelope.as_ref().filter(|_| self.message.is_none()) else {
            return Err(NO_MAIL);
        };
        let path = path(argument, "TO:", b"501 5.5.4 Syntax: RCPT TO:<address>\r\n")?;
        let postmaster = path.mailbox.eq_ignore_ascii_case("postmaster");
        let domain = path.domain();
        if domain.is_none() && !postmaster {
            return Err(b"501 5.1.3 Bad recipient address\r\n");
        }
        if !path.mailbox.is_ascii() && !envelope.smtputf8 {
            return Err(NEEDS_SMTPUTF8);
        }
        if !path.parameters().all(|(keyword, value)| self.esmtp && is_rcpt_parameter(keyword, value)) {
            return Err(BAD_PARAMETER);
        }
        let local = domain.is_none_or(|domain| self.shared.is_local(domain));
        if !local && !self.shared.may_relay(self.client.believed) {
            self.denied(path.mailbox);
            return Err(b"550 5.7.1 Relay access denied\r\n");
        }
        let keeps = self.keeps_envelope();
        match &mut self.envelope {
            Some(envelope) if envelope.recipient_count < RECIPIENTS_MAX => {
                envelope.recipient_count += 1;
                if keeps {
                    envelope.recipients.push(path.mailbox.into());
                }
                Ok(b"250 2.1.5 Ok\r\n")
            }
            _ => Err(b"452 4.5.3 Too many recipients\r\n"),
        }
    }

    fn denied(&self, recipient: &str) {
        if self.shared.is_watched() {
            let (client, recipient) = (Arc::clone(&self.client), recipient.into());
            self.shared.tell(&Event::Denied(Denied { client, recipient }));
        }
    }

    fn data(&mut self, argument: &str) -> Result<&'static [u8], &'static [u8]> {
        if !argument.is_empty() {
            return Err(b"501 5.5.4 DATA takes no argument\r\n");
        }
        if self.message.is_some() {
            return Err(b"503 5.5.1 BDAT has begun; RSET or BDAT LAST\r\n");
        }
        self.may_send()?;
        self.begin_message()?;
        self.state = State::Data(Dots::LineStart);
        Ok(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    }

    fn may_send(&self) -> Result<(), &'static [u8]> {
        match &self.envelope {
            None => Err(NO_MAIL),
            Some(envelope) if envelope.recipient_count == 0 => Err(NO_RECIPIENT),
            Some(_) => Ok(()),
        }
    }

    fn begin_message(&mut self) -> Result<(), &'static [u8]> {
        let draft = match &self.shared.maildir {
            None => None,
            Some(maildir) => Some(maildir.draft(&self.trace()).map_err(|error| {
                eprintln!("sink: the Maildir takes no message: {error}");
                b"451 4.3.0 The message cannot be stored\r\n".as_slice()
            })?),
        };
        self.message = Some(Box::new(Incoming::new(draft, self.shared.options.observer.is_some())));
        self.body_begun = false;
        Ok(())
    }

    fn bdat(&mut self, argument: &str, out: &mut Vec<u8>) -> Answer {
        let (size, last) = match argument.split_once(' ') {
            None => (argument, false),
            Some((size, last)) if last.eq_ignore_ascii_case("LAST") => (size, true),
            Some(_) => ("", false),
        };
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
            self.reset();
            return refuse(b"501 5.5.4 Syntax: BDAT octets [LAST]\r\n");
        }
        let Ok(left) = size.parse() else {
            // No end of the octets can be told any more, so no next command.
            out.extend_from_slice(b"552 5.3.4 The chunk is too big\r\n");
            return ControlFlow::Break(Flow::End(Farewell::Linger));
        };
        let begun = if self.message.is_some() { Ok(()) } else { self.may_send().and_then(|()| self.begin_message()) };
        self.state = State::Chunk(Chunk { left, last, refused: begun.err() });
        accept(b"")
    }

    fn keeps_envelope(&self) -> bool {
        self.shared.is_watched() || self.shared.maildir.is_some()
    }
}

/// A reply that counts as no error.
fn accept(reply: &'static [u8]) -> Answer {
    ControlFlow::Continue(Ok(reply))
}

/// A reply that counts as an error.
fn refuse(reply: &'static [u8]) -> Answer {
    ControlFlow::Continue(Err(reply))
}

/// The path behind `prefix`, which is compared without case.
fn path<'a>(argument: &'a str, prefix: &str, syntax: &'static [u8]) -> Result<PathArgument<'a>, &'static [u8]> {
    let behind = match argument.split_at_checked(prefix.len()) {
        Some((head, tail)) if head.eq_ignore_ascii_case(prefix) => tail,
        _ => return Err(syntax),
    };
    PathArgument::parse(behind).map_err(|fault| match fault {
        PathFault::Syntax => syntax,
        PathFault::Mailbox => b"501 5.1.3 Bad address\r\n",
    })
}

fn is_rcpt_parameter(keyword: &str, value: Option<&str>) -> bool {
    match (&*keyword.to_ascii_uppercase(), value) {
        ("NOTIFY", Some("")) | (_, None) => false,
        ("NOTIFY", Some(value)) => {
            let events = ["NEVER", "SUCCESS", "FAILURE", "DELAY"];
            value.split(',').all(|word| events.iter().any(|event| event.eq_ignore_ascii_case(word)))
        }
        ("ORCPT", Some(value)) => value.split_once(';').is_some_and(|(kind, address)| {
            !kind.is_empty() && !address.is_empty() && (kind.eq_ignore_ascii_case("utf-8") || is_xtext(address))
        }),
        _ => false,
    }
}
