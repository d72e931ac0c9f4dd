//! One connection's TLS, without I/O: bytes of the wire in, plain text and bytes for the wire out.
//!
//! A record that has not come whole is kept, and stands at the head of the next input; otherwise nothing is.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, HandshakeKind};

use super::fault::{TlsFault, judge_first};
use super::records::{Order, Received, pump, write};
use super::wire::Wire;

/// Bytes of a message that has not come whole. A handshake message has 64 KiB at most, and no honest one comes near.
const HELD_MAX: usize = 64 * 1024;

const TLS13: &str = "TLS 1.3";

/// What both sides agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLS 1.3`
    pub version: &'static str,
    /// The cipher suite as rustls names it; [`TlsFacts::cipher`] is the registered name.
    suite: &'static str,
    /// The key exchange's group; empty where an earlier session was taken up without one.
    pub group: &'static str,
    /// Whether an earlier session was taken up.
    pub resumed: bool,
    /// Whether the peer's certificate was found to be that of whom we wanted.
    pub verified: bool,
}

impl TlsFacts {
    /// The cipher suite's registered name, such as `TLS_AES_128_GCM_SHA256`.
    pub fn cipher(&self) -> String {
        self.suite.replacen("TLS13_", "TLS_", 1)
    }

    /// Whether a server has nothing to say at the end of the handshake but tickets, which nobody waits for.
    pub fn has_tickets_last(&self) -> bool {
        self.version == TLS13
    }

    /// All of it, and whether the peer is whom we wanted.
    pub fn judged(&self) -> String {
        format!("{self}, {}", if self.verified { "verified" } else { "not verified" })
    }
}

impl fmt::Display for TlsFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher())?;
        if !self.group.is_empty() {
            write!(f, " {}", self.group)?;
        }
        Ok(())
    }
}

/// One connection's TLS.
pub struct Channel {
    side: Side,
    /// A record that has not come whole.
    pub(super) held: Vec<u8>,
    /// The peer has said something.
    begun: bool,
    established: bool,
    /// How it came to a bad end. rustls must not be asked again then.
    failed: Option<TlsFault>,
    /// This side has said that it sends no more.
    closed: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client { connection: UnbufferedClientConnection, judge: Judge },
}

/// How the peer's certificate is judged.
pub(super) enum Judge {
    /// The handshake has done it; whether it demands anything.
    Handshake { demands: bool },
    /// Afterwards, to be shown only.
    Later { verifier: Arc<dyn ServerCertVerifier>, name: Box<ServerName<'static>> },
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("established", &self.established).finish_non_exhaustive()
    }
}

impl Channel {
    pub(super) fn server(connection: UnbufferedServerConnection) -> Self {
        Self {
            side: Side::Server(connection),
            held: Vec::new(),
            begun: false,
            established: false,
            failed: None,
            closed: false,
        }
    }

    pub(super) fn client(connection: UnbufferedClientConnection, judge: Judge) -> Self {
        Self {
            side: Side::Client { connection, judge },
            held: Vec::new(),
            begun: false,
            established: false,
            failed: None,
            closed: false,
        }
    }

    /// What must stand at the head of the next input.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Whether the handshake is done.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// What a client has to say first.
    ///
    /// # Errors
    /// Those of [`Channel::receive`].
    pub fn begin(&mut self, wire: &mut Wire) -> Result<(), TlsFault> {
        self.receive(&mut [], &mut [], wire).map(drop)
    }

    /// Takes bytes of the wire: those of [`Channel::held`], and all that were read behind them. The plain text goes to the
    /// head of `plain`, which has as many bytes as `input`; what TLS itself has to say goes to `wire`, and is to be sent also
    /// after a fault.
    ///
    /// # Errors
    /// The connection is at its end: what the peer did wrong, or could not do. Text that came whole before a fault is given
    /// first; the fault is then that of the next call, and of [`Channel::fault`].
    pub fn receive(&mut self, input: &mut [u8], plain: &mut [u8], wire: &mut Wire) -> Result<Received, TlsFault> {
        self.check()?;
        let mut received = Received::default();
        if let Err(fault) = self.take_in(input, plain, wire, &mut received) {
            self.held = Vec::new();
            self.failed = Some(fault.clone());
            if received.plain == 0 {
                return Err(fault);
            }
        }
        if !self.established && !self.common().is_handshaking() {
            self.established = true;
            received.established = true;
        }
        Ok(received)
    }

    /// The text of the last bytes that there will be, those of [`Channel::held`] first, as far as it came whole.
    pub fn last_text(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let mut plain = vec![0; input.len()];
        // Nobody is left to hear an alert, and a fault ends what has ended.
        let received = self.receive(&mut input, &mut plain, &mut Wire::default()).unwrap_or_default();
        plain.truncate(received.plain);
        plain
    }

    /// What it came to its end by.
    pub fn fault(&self) -> Option<&TlsFault> {
        self.failed.as_ref()
    }

    fn take_in(
        &mut self,
        input: &mut [u8],
        plain: &mut [u8],
        wire: &mut Wire,
        received: &mut Received,
    ) -> Result<(), TlsFault> {
        if let (false, Some(first)) = (self.begun, input.first()) {
            judge_first(*first)?;
            self.begun = true;
        }
        let used = match &mut self.side {
            Side::Server(connection) => pump(connection, input, plain, wire, received)?,
            Side::Client { connection, .. } => pump(connection, input, plain, wire, received)?,
        };
        let left = &input[used..];
        if left.len() > HELD_MAX {
            return Err(TlsFault::Protocol("a message without end".to_owned()));
        }
        if left.is_empty() {
            self.held = Vec::new();
        } else {
            self.held.clear();
            self.held.extend_from_slice(left);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TlsFault> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Encrypts `head` and `body` for the wire, in as few records as hold them.
    ///
    /// # Errors
    /// The connection cannot be written to: its handshake is not done, or it has sent all that its key is good for.
    pub fn send(&mut self, head: &[u8], body: &[u8], wire: &mut Wire) -> Result<(), TlsFault> {
        self.write(&Order::Send(head, body), wire)
    }

    /// Says, once, that no more will come from this side. Nothing is said within a handshake.
    pub fn close(&mut self, wire: &mut Wire) {
        if self.established && !std::mem::replace(&mut self.closed, true) {
            // A connection that cannot be written to any more needs no announcement of its end.
            let _ = self.write(&Order::Close, wire);
        }
    }

    /// What was agreed upon; `None` before the handshake is done.
    pub fn facts(&self) -> Option<TlsFacts> {
        if !self.established {
            return None;
        }
        let common = self.common();
        let group = common.negotiated_key_exchange_group();
        Some(TlsFacts {
            version: match common.protocol_version()? {
                rustls::ProtocolVersion::TLSv1_3 => TLS13,
                _ => "TLS 1.2",
            },
            suite: common.negotiated_cipher_suite()?.suite().as_str().unwrap_or("?"),
            group: group.and_then(|group| group.name().as_str()).unwrap_or_default(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            verified: match &self.side {
                Side::Server(_) => false,
                Side::Client { judge, .. } => judge.finds_good(common.peer_certificates().unwrap_or_default()),
            },
        })
    }

    /// The digest of the peer's public key, if it has shown a certificate: what a pin holds.
    #[cfg(test)]
    pub(super) fn peer_key_digest(&self) -> Option<[u8; 32]> {
        self.common().peer_certificates()?.first().and_then(|certificate| super::leaf::key_digest(certificate))
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(connection) => connection,
            Side::Client { connection, .. } => connection,
        }
    }

    fn write(&mut self, order: &Order<'_>, wire: &mut Wire) -> Result<(), TlsFault> {
        self.check()?;
        // A partial message must lie before rustls as it did when it was read.
        let written = match &mut self.side {
            Side::Server(connection) => write(connection, &mut self.held, order, wire),
            Side::Client { connection, .. } => write(connection, &mut self.held, order, wire),
        };
        self.failed = written.as_ref().err().cloned();
        self.held.drain(..written?);
        Ok(())
    }
}

impl Judge {
    fn finds_good(&self, chain: &[CertificateDer<'_>]) -> bool {
        match self {
            Self::Handshake { demands } => *demands,
            Self::Later { verifier, name } => chain.split_first().is_some_and(|(leaf, others)| {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                verifier.verify_server_cert(leaf, others, name, &[], UnixTime::since_unix_epoch(since)).is_ok()
            }),
        }
    }
}
