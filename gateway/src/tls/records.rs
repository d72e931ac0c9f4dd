//! What rustls' unbuffered connections ask of their user, done here and nowhere else: what they say to discard is taken off
//! before they are called again, output grows to what a record needs, and the alert that tells the peer what was wrong with it
//! leaves before the error is shown.

use std::fmt;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};

use super::fault::TlsFault;
use super::wire::Wire;

/// Bytes of a record's plain text.
const RECORD_MAX: usize = 16 * 1024;
/// What a record adds to its plain text, and what may stand before the first, at most.
const RECORD_COST: usize = 64;

/// What came out of bytes of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Bytes of plain text.
    pub plain: usize,
    /// The handshake came to its end with these bytes.
    pub established: bool,
    /// The peer has said that it sends no more.
    pub closed: bool,
}

/// What is to be written once it may.
pub(super) enum Order<'a> {
    Send(&'a [u8], &'a [u8]),
    Close,
}

/// The one call that client and server connections have in common, and no trait for.
pub(super) trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn has_to_say(&self) -> bool;
}

impl Process for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(input)
    }

    fn has_to_say(&self) -> bool {
        self.wants_write()
    }
}

impl Process for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(input)
    }

    fn has_to_say(&self) -> bool {
        self.wants_write()
    }
}

/// Has the connection take in all of `input` that it can. How much that was.
pub(super) fn pump<P: Process>(
    connection: &mut P,
    input: &mut [u8],
    plain: &mut [u8],
    wire: &mut Wire,
    received: &mut Received,
) -> Result<usize, TlsFault> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut input[used..]);
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                tell_why(connection, &mut input[used + discard..], wire);
                return Err(error.into());
            }
        };
        let mut waits = false;
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    let end = received.plain + record.payload.len();
                    let free = plain.get_mut(received.plain..end);
                    free.ok_or_else(|| protocol(&"more text than records"))?.copy_from_slice(record.payload);
                    received.plain = end;
                }
            }
            ConnectionState::EncodeTlsData(data) => encode(data, wire)?,
            // What was encoded is in `wire`, and whoever owns that sends it before anything else.
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => received.closed = true,
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed => {
                waits = true
            }
            other => return Err(protocol(&format_args!("{other:?} was not agreed upon"))),
        }
        used += discard;
        if waits {
            return Ok(used);
        }
    }
}

/// After a fault: the alert that tells the peer of it, and what was to be said before. rustls may not look at input again
/// then, and does not while it has something to say.
fn tell_why<P: Process>(connection: &mut P, rest: &mut [u8], wire: &mut Wire) {
    while connection.has_to_say() {
        match connection.process(rest).state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                if encode(data, wire).is_err() {
                    return;
                }
            }
            // What came before the fault is not heard.
            Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
            _ => return,
        }
    }
}

/// Writes once the connection says that it may. How much of `held` is used up.
pub(super) fn write<P: Process>(
    connection: &mut P,
    held: &mut [u8],
    order: &Order<'_>,
    wire: &mut Wire,
) -> Result<usize, TlsFault> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { discard, state } = connection.process(&mut held[used..]);
        used += discard;
        match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                match order {
                    Order::Send(head, body) => encrypt_joined(&mut traffic, head, body, wire)?,
                    Order::Close => {
                        let needs = |error: &EncryptError| encrypt_needs(error);
                        let written = wire.write(RECORD_COST, |free| traffic.queue_close_notify(free), needs);
                        written.map_err(|error| protocol(&error))?;
                    }
                }
                return Ok(used);
            }
            ConnectionState::EncodeTlsData(data) => encode(data, wire)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            // Shown when it was received.
            ConnectionState::PeerClosed => {}
            other => return Err(protocol(&format_args!("{other:?} where text was to be sent"))),
        }
    }
}

/// Each record costs both ends a call of the cipher, and a reader often a call of the system: the two share what they can.
fn encrypt_joined<D>(
    traffic: &mut WriteTraffic<'_, D>,
    head: &[u8],
    body: &[u8],
    wire: &mut Wire,
) -> Result<(), TlsFault> {
    let shared = body.len().min(RECORD_MAX.saturating_sub(head.len()));
    let (shared, rest) = if head.is_empty() { (&[][..], body) } else { body.split_at(shared) };
    if shared.is_empty() {
        encrypt(traffic, head, wire)?;
    } else {
        encrypt(traffic, &[head, shared].concat(), wire)?;
    }
    encrypt(traffic, rest, wire)
}

fn encrypt<D>(traffic: &mut WriteTraffic<'_, D>, part: &[u8], wire: &mut Wire) -> Result<(), TlsFault> {
    if part.is_empty() {
        return Ok(());
    }
    let length = part.len() + (part.len() / RECORD_MAX + 2) * RECORD_COST;
    let written = wire.write(length, |free| traffic.encrypt(part, free), encrypt_needs);
    written.map_err(|error| protocol(&error))
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, wire: &mut Wire) -> Result<(), TlsFault> {
    let needs = |error: &EncodeError| match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
        EncodeError::AlreadyEncoded => None,
    };
    wire.write(RECORD_COST, |free| data.encode(free), needs).map_err(|error| protocol(&error))
}

fn encrypt_needs(error: &EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
        EncryptError::EncryptExhausted => None,
    }
}

fn protocol(what: &dyn fmt::Display) -> TlsFault {
    TlsFault::Protocol(what.to_string())
}
