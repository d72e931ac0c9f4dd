//! What a sink tells: who it believes each client is, what it refused to relay, and each message. As data for tests, and
//! as one plain line for people.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};

/// Who the sink believes the client is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The sink's session, numbered from 1.
    pub session: u64,
    /// The other end of the connection: the gateway, or the client itself.
    pub peer: SocketAddr,
    /// The client's address; `None` if XCLIENT said that there is none. Never a v4-mapped one.
    pub believed: Option<IpAddr>,
    /// The client's port, if it is known.
    pub port: Option<u16>,
    /// Who said so.
    pub by: By,
    /// The client's name, as XCLIENT gave it.
    pub name: ClientName,
    /// XCLIENT PROTO.
    pub proto: Option<String>,
    /// XCLIENT HELO.
    pub helo: Option<String>,
    /// Where the client connected to: XCLIENT DESTADDR, or the PROXY header's destination.
    pub destination: Option<IpAddr>,
    /// The port of it.
    pub destination_port: Option<u16>,
}

/// Who said who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Nobody: it is the peer.
    Connection,
    /// XCLIENT.
    Xclient,
    /// A PROXY header of version 1. With `UNKNOWN` the client is the peer.
    ProxyV1,
    /// A PROXY header of version 2. With `LOCAL` the client is the peer.
    ProxyV2,
}

/// What XCLIENT NAME said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// Nothing: the attribute did not come.
    Untold,
    /// The client is called this.
    Known(String),
    /// `[UNAVAILABLE]`: there is none.
    Unavailable,
    /// `[TEMPUNAVAIL]`: the look-up failed.
    TemporarilyUnavailable,
}

/// A message that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub client: Arc<Client>,
    /// The name of its own HELO or EHLO.
    pub helo: String,
    /// The reverse-path without its brackets; empty for a bounce.
    pub from: String,
    /// The recipients that were accepted, without brackets.
    pub recipients: Vec<String>,
    /// Octets, with dots unstuffed and the ending dot left out.
    pub size: u64,
    /// [`digest`](super::digest) of those octets; 0 if nobody observes.
    pub digest: u64,
    /// Whether it was answered with 250.
    pub accepted: bool,
}

/// A recipient that was refused, because it is not local and the client may not relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Who wanted it.
    pub client: Arc<Client>,
    /// The recipient.
    pub recipient: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session has a client. With XCLIENT this waits for the first XCLIENT, MAIL or the session's end, and comes again
    /// for each further XCLIENT.
    Client(Arc<Client>),
    /// A recipient was refused.
    Denied(Denied),
    /// A message is over.
    Message(Message),
}

/// Somebody who is told of events, on the sink's threads: it must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(&Event) + Send + Sync>);

impl Observer {
    /// Calls `tell` for each event.
    pub fn new(tell: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Sends each event to a channel; a receiver that is gone is no fault.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel();
        let tell = move |event: &Event| drop(sender.send(event.clone()));
        (Self::new(tell), receiver)
    }

    pub(super) fn tell(&self, event: &Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Xclient => "XCLIENT",
            Self::ProxyV1 => "PROXY v1",
            Self::ProxyV2 => "PROXY v2",
        })
    }
}

impl Client {
    fn believed(&self) -> impl fmt::Display {
        self.believed.map_or_else(|| "unknown".into(), |address| address.to_string())
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.believed())?;
        if let ClientName::Known(name) = &self.name {
            write!(f, " name={name}")?;
        }
        match self.by {
            By::Connection => Ok(()),
            by => write!(f, " (via {}, by {by})", self.peer.ip().to_canonical()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "client {client}"),
            Self::Denied(Denied { client, recipient }) => {
                write!(f, "relay denied to=<{recipient}>, client {}", client.believed())
            }
            Self::Message(message) => {
                write!(f, "message from=<{}>", message.from)?;
                for recipient in &message.recipients {
                    write!(f, " to=<{recipient}>")?;
                }
                write!(f, " {} bytes, client {}", message.size, message.client.believed())?;
                f.write_str(if message.accepted { "" } else { ", not accepted" })
            }
        }
    }
}
