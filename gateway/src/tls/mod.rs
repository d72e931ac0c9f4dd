//! TLS on both sides, and the certificates it needs. The one room that names rustls.
//!
//! A connection's TLS is a [`Channel`]: bytes of the wire go in, plain text and bytes for the wire come out, and it owns no
//! socket. It uses rustls' *unbuffered* connections, so that records are decrypted in the worker's scratch space, and a
//! session that is idle owns no buffer; the buffered ones keep at least 4 KiB a direction for ever. [`Acceptor`] begins a
//! client's, [`Connector`] a backend's. [`TlsStream`] is the same for callers that may wait: health checks and the relay
//! proof.
//!
//! [`Certificates`] are read from PEM files, judged as a pair, chosen by the name that a client asks for, and exchanged while
//! the gateway runs. This room must not know SMTP, nor who asks.
//!
//! Invariant: a certificate that is in use is given up only for one that was read and found good.
//! Invariant: nobody else names rustls. Its next version changes just this interface.

mod acceptor;
mod certificates;
mod channel;
mod ciphers;
mod connector;
mod fault;
mod leaf;
mod pair;
mod records;
mod self_signed;
mod stream;
mod tickets;
mod verify;
mod watch;
mod wire;

pub use acceptor::{Acceptor, TlsVersion};
pub use certificates::{CertificateState, Certificates, HandOver};
pub use channel::{Channel, TlsFacts};
pub use connector::{Connector, ConnectorFault, Verify};
pub use fault::{FaultCause, TlsFault};
pub use leaf::{KeyType, Leaf};
pub use pair::{Pair, PairFault, PairFiles, PairText, Problem};
pub use records::Received;
pub use self_signed::{SelfSigned, self_signed};
pub use stream::{SecuredStream, TlsStream};
pub use tickets::{ExportedKeys, TicketKeys};
pub use verify::Pin;
pub use watch::{Watch, WatchFault};
pub use wire::Wire;

#[cfg(test)]
mod tests;
