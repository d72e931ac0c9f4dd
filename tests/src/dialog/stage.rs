//! A client on one side of the core, a backend on the other, and between them what the driver does.

use std::collections::VecDeque;
use std::time::Duration;

use smtp_gateway::identity::xclient::{ClientName, Ipv6Form};
use smtp_gateway::policy::relay_guard::Hold;
use smtp_gateway::session::{
    Action, Answer, Connected, MessageReport, Output, Question, RecipientVerdict, Refused, ServerSeen, Session, Ticket,
};
use smtp_gateway::smtp::reply::EnhancedCode;
use smtp_gateway::time::{Millis, WallClock};

use super::Packets;
use super::compare::{expect_bytes, expect_line, matches, shown};
use super::settings::{self, Map};

/// The gateway's address that the client connected to.
const DESTINATION: &str = "192.0.2.1:25";
/// When the backend is connected to: 2026-11-25 12:00:00 UTC.
const UNIX_SECONDS: i64 = 1_795_608_000;

/// How long `@ greeting = held` holds it.
const GREETING_DELAY: Duration = Duration::from_secs(5);

/// One session with both its ends.
#[derive(Debug)]
pub struct Stage {
    /// The core.
    pub session: Session,
    /// What the client received and no one expected yet.
    pub to_client: Vec<u8>,
    /// What the backend received and no one expected yet.
    pub to_backend: Vec<u8>,
    /// Every message's report, in order.
    pub reports: Vec<MessageReport>,
    /// The gateway asked for a connection and got no answer yet.
    pub dialling: bool,
    /// The gateway closed the backend's connection.
    pub backend_closed: bool,
    /// The gateway closed the client's connection.
    pub client_closed: bool,
    out: Output,
    packets: Packets,
    now: Millis,
    name: ClientName,
    /// The transcript knows of the dial, and has not said how it went.
    hanging: bool,
    /// The gateway wants TLS with the client.
    pub securing_client: bool,
    /// The gateway wants TLS with the backend.
    securing: bool,
    /// The gateway asks about a recipient.
    asked: Option<Ticket>,
    /// What is said to the backend stays unsent.
    stuck: bool,
    /// The backend is on the gateway's own machine.
    is_on_this_host: bool,
    client_in: Vec<u8>,
    client_eof: bool,
    backend_in: Vec<u8>,
    events: VecDeque<String>,
}

impl Stage {
    /// A client has connected, and unless the settings hold the greeting back it was greeted.
    pub fn new(settings: &Map, packets: Packets) -> Result<Self, String> {
        let now = Millis(1000);
        let mut stage = Self {
            session: settings::session(settings, now)?,
            to_client: Vec::new(),
            to_backend: Vec::new(),
            reports: Vec::new(),
            dialling: false,
            backend_closed: false,
            client_closed: false,
            out: Output::default(),
            packets,
            now,
            name: match (settings.get("name"), settings.get("reverse")) {
                (Some(name), _) => ClientName::verified(name),
                (None, Some(name)) => ClientName::Unconfirmed { reverse: name.as_str().into(), temporary: false },
                (None, None) => ClientName::Unavailable,
            },
            hanging: false,
            securing_client: false,
            securing: false,
            asked: None,
            stuck: false,
            is_on_this_host: settings.contains_key("on_this_host"),
            client_in: Vec::new(),
            client_eof: false,
            backend_in: Vec::new(),
            events: VecDeque::new(),
        };
        let delay = if settings.contains_key("greeting") { GREETING_DELAY } else { Duration::ZERO };
        stage.session.set_crammed(settings.contains_key("crammed"));
        stage.session.begin(now, delay, false, &mut stage.out);
        stage.pump();
        Ok(stage)
    }

    /// Octets of the client and of the backend that the core has not used yet.
    pub fn unread(&self) -> (usize, usize) {
        (self.client_in.len(), self.backend_in.len())
    }

    /// The greeting's delay is over.
    pub fn greet(&mut self) {
        self.time_passes(GREETING_DELAY.as_secs(), false);
    }

    /// What was asked about a recipient is answered: "pass", or a reply.
    pub fn answered(&mut self, how: &str) -> Result<(), String> {
        let ticket = self.asked.take().ok_or("nothing was asked")?;
        self.quiet()?;
        let verdict = match how.split_once(' ') {
            None => RecipientVerdict::Pass,
            Some((code, text)) => {
                let code: u16 = code.parse().map_err(|_| "a code is needed")?;
                RecipientVerdict::Refuse {
                    code,
                    enhanced: EnhancedCode(if code < 500 { 4 } else { 5 }, 7, 1),
                    text: text.into(),
                }
            }
        };
        // One that was never asked for changes nothing.
        self.session.answer(self.now, ticket, Answer::ClientName(ClientName::Unavailable), &mut self.out);
        self.session.answer(self.now, ticket, Answer::Recipient(verdict), &mut self.out);
        self.session.answer(self.now, ticket, Answer::Recipient(RecipientVerdict::Pass), &mut self.out);
        self.pump();
        Ok(())
    }

    /// From now on the backend takes no more bytes, or does again.
    pub fn stick(&mut self, stuck: bool) {
        self.stuck = stuck;
    }

    /// The client sends bytes.
    pub fn client_sends(&mut self, bytes: &[u8]) {
        for packet in split(bytes, self.packets) {
            self.client_in.extend_from_slice(packet);
            self.pump();
        }
    }

    /// The backend sends bytes.
    pub fn backend_sends(&mut self, bytes: &[u8]) {
        for packet in split(bytes, self.packets) {
            self.backend_in.extend_from_slice(packet);
            self.pump();
        }
    }

    /// The backend closes its connection.
    pub fn backend_closes(&mut self) {
        self.session.backend_closed(self.now, &mut self.out);
        self.backend_in.clear();
        self.pump();
    }

    /// The client sends nothing more.
    pub fn client_closes(&mut self) {
        self.client_eof = true;
        self.pump();
    }

    /// The client's connection breaks.
    pub fn client_breaks(&mut self) {
        self.session.client_closed(self.now, true, &mut self.out);
        self.pump();
    }

    /// The gateway begins to drain.
    pub fn drain(&mut self) {
        self.session.drain(&mut self.out);
        self.pump();
    }

    /// The grace time of the drain is over.
    pub fn drain_now(&mut self) {
        self.session.drain_now(self.now, &mut self.out);
        self.pump();
    }

    /// Time passes; the core is told at its deadlines, and only then.
    pub fn time_passes(&mut self, seconds: u64, stalled: bool) {
        self.time_passes_seeing(seconds, ServerSeen { stalled, ..ServerSeen::default() });
    }

    /// The same; how the driver sees the server meanwhile.
    pub fn time_passes_seeing(&mut self, seconds: u64, seen: ServerSeen) {
        let until = self.now.after(Duration::from_secs(seconds));
        while !self.client_closed && self.session.deadline() <= until {
            self.now = self.session.deadline().max(Millis(self.now.0 + 1));
            self.session.tick(self.now, seen, &mut self.out);
            self.pump();
            let waits = self.session.deadline() > self.now || self.session.end().is_some();
            assert!(waits, "a tick at its deadline must move it, or the driver spins: {:#?}", self.session);
        }
        self.now = until.max(self.now);
    }

    /// The gateway was asked to have dialled; `how` it went: "", "refused" or "hangs".
    pub fn dialled(&mut self, how: &str) -> Result<(), String> {
        self.dialling |= std::mem::take(&mut self.hanging);
        take_flag(&mut self.dialling, "the backend was not dialled")?;
        self.quiet()?;
        match how {
            "" => {
                let destination = DESTINATION.parse().map_err(|_| "bad destination")?;
                let clock = WallClock { at: self.now, unix_seconds: UNIX_SECONDS };
                let connected = Connected {
                    destination,
                    ipv6_form: Ipv6Form::default(),
                    open_by: None,
                    answers_by: self.now.after(Duration::from_secs(10)),
                    is_on_this_host: self.is_on_this_host,
                };
                self.session.backend_connected(clock, connected, &mut self.out);
            }
            "refused" => self.session.backend_unreachable(self.now, &mut self.out),
            "hangs" => self.hanging = true,
            _ => return Err("`B+`, `B+ refused` or `B+ hangs` is needed".to_owned()),
        }
        self.pump();
        Ok(())
    }

    /// TLS with the client stands, does not for this reason, or `hangs`.
    pub fn client_secured(&mut self, how: &str) -> Result<(), String> {
        take_flag(&mut self.securing_client, "TLS with the client was not begun")?;
        match how.trim() {
            "" => self.session.client_secured(self.now, &mut self.out),
            "hangs" => {}
            _ => self.session.client_not_secured(&mut self.out),
        }
        self.pump();
        Ok(())
    }

    /// TLS with the backend stands, is `verified` too, does not stand for this reason, or `hangs`.
    pub fn secured(&mut self, how: &str) -> Result<(), String> {
        take_flag(&mut self.securing, "TLS with the backend was not begun")?;
        self.quiet()?;
        match how {
            "" => self.session.backend_secured(self.now, false, &mut self.out),
            "hangs" => {}
            "verified" => self.session.backend_secured(self.now, true, &mut self.out),
            why => self.session.backend_not_secured(self.now, why.to_owned(), &mut self.out),
        }
        self.pump();
        Ok(())
    }

    /// Nothing has happened that was not expected.
    pub fn quiet(&self) -> Result<(), String> {
        let left = |side: &str, bytes: &[u8]| {
            if bytes.is_empty() { Ok(()) } else { Err(format!("before this, {side} received: {}", shown(bytes))) }
        };
        left("the client", &self.to_client)?;
        left("the backend", &self.to_backend)?;
        for (flag, what) in [
            (self.dialling, "the backend was dialled"),
            (self.securing, "TLS with the backend was begun"),
            (self.securing_client, "TLS with the client was begun"),
            (self.backend_closed, "the backend's connection was closed"),
            (self.client_closed, "the client's connection was closed"),
        ] {
            if flag {
                return Err(format!("before this, {what}"));
            }
        }
        Ok(())
    }

    /// The client received this line.
    pub fn expect_client_line(&mut self, expected: &str) -> Result<(), String> {
        expect_line(&mut self.to_client, expected)
    }

    /// The client received these bytes.
    pub fn expect_client_bytes(&mut self, expected: &[u8]) -> Result<(), String> {
        expect_bytes(&mut self.to_client, expected)
    }

    /// The backend received this line.
    pub fn expect_backend_line(&mut self, expected: &str) -> Result<(), String> {
        expect_line(&mut self.to_backend, expected)
    }

    /// The backend received these bytes.
    pub fn expect_backend_bytes(&mut self, expected: &[u8]) -> Result<(), String> {
        expect_bytes(&mut self.to_backend, expected)
    }

    /// The gateway closed the backend's connection.
    pub fn expect_backend_closed(&mut self) -> Result<(), String> {
        take_flag(&mut self.backend_closed, "the backend's connection is open")
    }

    /// The gateway closed the client's connection.
    pub fn expect_client_closed(&mut self) -> Result<(), String> {
        take_flag(&mut self.client_closed, "the client's connection is open")
    }

    /// The log heard this, perhaps behind other things.
    pub fn expect_event(&mut self, expected: &str) -> Result<(), String> {
        let heard: Vec<String> = self.events.iter().cloned().collect();
        while let Some(event) = self.events.pop_front() {
            if matches(&event, expected) {
                return Ok(());
            }
        }
        Err(format!("only {heard:?} was heard"))
    }

    /// What the log heard and no one expected yet.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(String::as_str)
    }

    /// Does what the driver does until nothing moves.
    fn pump(&mut self) {
        loop {
            self.collect();
            if !self.backend_in.is_empty() {
                let used = self.session.backend_bytes(self.now, &self.backend_in, self.stuck, &mut self.out);
                self.backend_in.drain(..used.min(self.backend_in.len()));
                if used > 0 {
                    continue;
                }
            }
            if !self.session.wants_client() {
                break;
            }
            let taken = self.session.client_bytes(self.now, Hold::None, &mut self.client_in, &mut self.out);
            let forward = self.client_in[taken.forward.clone()].to_vec();
            self.to_backend.append(&mut self.out.to_backend);
            self.to_backend.extend_from_slice(&forward);
            self.collect();
            self.client_in.drain(..taken.used);
            if taken.used == 0 {
                break;
            }
        }
        if self.client_eof && self.session.wants_client() {
            self.client_eof = false;
            self.session.client_closed(self.now, false, &mut self.out);
        }
        self.collect();
    }

    fn collect(&mut self) {
        self.to_client.append(&mut self.out.to_client);
        self.to_backend.append(&mut self.out.to_backend);
        for action in std::mem::take(&mut self.out.actions) {
            match action {
                Action::Dial => self.dialling = true,
                Action::DialAgain => {
                    self.dialling = true;
                    self.backend_in.clear();
                }
                Action::DialInstead => {
                    self.dialling = true;
                    self.events.push_back("another server, for this one is lost".to_owned());
                }
                Action::DialAnother(blame) => {
                    self.dialling = true;
                    self.events.push_back(format!("another server, blame: {blame:?}").to_lowercase());
                }
                Action::Ask(ticket, Question::ClientName) => {
                    let answer = Answer::ClientName(self.name.clone());
                    self.session.answer(self.now, ticket, answer, &mut self.out);
                }
                Action::Ask(ticket, Question::Recipient(_)) => self.asked = Some(ticket),
                Action::CloseBackend => {
                    self.backend_closed = true;
                    self.dialling = false;
                    self.hanging = false;
                    self.securing = false;
                    self.backend_in.clear();
                }
                Action::CloseClient => self.client_closed = true,
                Action::Message(report) => {
                    self.events.push_back(format!("{:?} {}", report.outcome, report.code).to_lowercase());
                    self.reports.push(*report);
                }
                // 0 is the listener's own backend; behind it stand the configuration's routes.
                Action::NotTaken(route, why) => {
                    let place = route.place().map_or_else(|| "none".to_owned(), |place| place.to_string());
                    self.events.push_back(format!("{why:?} by route {place}").to_lowercase());
                }
                Action::Refused(Refused::Relay(_)) => self.events.push_back("relay denied".to_owned()),
                Action::Refused(Refused::EarlyTalk) => self.events.push_back("early talk".to_owned()),
                Action::SecureClient(_) => self.securing_client = true,
                Action::SecureBackend(_) => self.securing = true,
                Action::BackendInClearText(why) => self.events.push_back(format!("backend in clear text: {why}")),
                Action::BackendTlsFailed(why) => self.events.push_back(format!("backend tls failed: {why}")),
                Action::Offence(offence) => self.events.push_back(format!("offence: {offence}")),
                Action::BackendBusy { code, text, .. } => self.events.push_back(format!("backend busy: {code} {text}")),
                Action::IdentityFailed(why) => self.events.push_back(format!("identity failed: {why}")),
                // What follows is the transcript's to say.
                Action::IdentityAccepted => {}
                Action::IdentityDoubted => self.events.push_back("identity doubted".to_owned()),
                Action::Refused(Refused::TlsUnasked) => self.events.push_back("TLS in clear text".to_owned()),
                Action::Refused(Refused::TooManyHandshakes) => self.events.push_back("too many handshakes".to_owned()),
                Action::Refused(Refused::ProxyHeader) => self.events.push_back("PROXY header".to_owned()),
                Action::Login(report) => {
                    let name = report.login.as_ref().map_or("", |login| login.name());
                    self.events.push_back(format!("login {:?} {name}", report.outcome).trim_end().to_owned());
                }
                Action::AskServer => self.events.push_back("server asked whether it is there".to_owned()),
                Action::DialectStale => self.events.push_back("dialect stale".to_owned()),
            }
        }
    }
}

fn split(bytes: &[u8], packets: Packets) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(match packets {
        Packets::Whole => bytes.len().max(1),
        Packets::Bytes => 1,
    })
}

fn take_flag(flag: &mut bool, otherwise: &str) -> Result<(), String> {
    if std::mem::take(flag) { Ok(()) } else { Err(otherwise.to_owned()) }
}
