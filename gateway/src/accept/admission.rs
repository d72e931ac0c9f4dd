//! How many sessions there may be: all together, and from one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::config::Limits;
use crate::identity::{ClientAddr, Source};

/// The book of open sessions, shared by all workers.
#[derive(Debug)]
pub struct Admission {
    sessions: AtomicUsize,
    sessions_max: usize,
    clients: DashMap<Source, usize>,
    per_client_max: usize,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `limits.sessions` is reached.
    Full,
    /// `limits.sessions_per_client` is reached.
    ClientFull,
    /// The client is banned.
    Banned,
}

/// One of the gateway's sessions; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Admission>);

/// One of a client's sessions; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    book: Arc<Admission>,
    source: Source,
}

impl Refusal {
    /// The reply, and the end.
    pub(super) fn reply(self) -> &'static [u8] {
        match self {
            Self::Full => b"421 4.3.2 Too many sessions, try again later\r\n",
            Self::ClientFull => b"421 4.7.0 Too many sessions from your address, try again later\r\n",
            // Not silence: whoever is banned by mistake must be able to find out.
            Self::Banned => b"421 4.7.1 Your address is banned for a while\r\n",
        }
    }
}

impl Admission {
    /// With nobody in.
    pub fn new(limits: &Limits) -> Self {
        Self {
            sessions: AtomicUsize::new(0),
            sessions_max: limits.sessions,
            clients: DashMap::new(),
            per_client_max: limits.sessions_per_client,
        }
    }

    /// Sessions and connections that may become one.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Clients with sessions, and how many each has; in no order.
    pub fn clients(&self) -> Vec<(Source, usize)> {
        self.clients.iter().map(|open| (*open.key(), *open.value())).collect()
    }

    /// A slot for a connection whose client may not be known yet.
    pub(super) fn slot(self: &Arc<Self>) -> Result<Slot, Refusal> {
        // Taken first and checked then: two workers may both be refused at the limit, but none can pass it.
        let slot = Slot(self.clone());
        if self.sessions.fetch_add(1, Ordering::Relaxed) >= self.sessions_max {
            return Err(Refusal::Full);
        }
        Ok(slot)
    }

    /// A place among the client's sessions.
    pub(super) fn place(self: &Arc<Self>, client: ClientAddr) -> Result<Place, Refusal> {
        let source = Source::of(client.ip());
        let mut open = self.clients.entry(source).or_insert(0);
        if *open >= self.per_client_max {
            return Err(Refusal::ClientFull);
        }
        *open += 1;
        Ok(Place { book: self.clone(), source })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.book.clients.entry(self.source) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::identity::PeerAddr;

    fn client(ip: &str) -> ClientAddr {
        ClientAddr::direct(PeerAddr::from_socket((ip.parse::<IpAddr>().unwrap(), 4711).into()))
    }

    fn book(sessions: usize, sessions_per_client: usize) -> Arc<Admission> {
        Arc::new(Admission::new(&Limits { sessions, sessions_per_client, ..Limits::default() }))
    }

    #[test]
    fn slots_are_given_back() {
        let book = book(2, 9);
        let (first, _second) = (book.slot().unwrap(), book.slot().unwrap());
        assert_eq!(book.slot().unwrap_err(), Refusal::Full);
        assert_eq!(book.sessions(), 2);
        drop(first);
        assert!(book.slot().is_ok());
    }

    #[test]
    fn a_client_is_an_address_or_a_64() {
        let book = book(9, 1);
        let held = book.place(client("2001:db8:0:1::1")).unwrap();
        assert_eq!(book.place(client("2001:db8:0:1:ffff::2")).unwrap_err(), Refusal::ClientFull);
        assert!(book.place(client("2001:db8:0:2::1")).is_ok());
        let _v4 = book.place(client("192.0.2.1")).unwrap();
        assert_eq!(book.place(client("::ffff:192.0.2.1")).unwrap_err(), Refusal::ClientFull);
        assert!(book.place(client("192.0.2.2")).is_ok());
        drop(held);
        assert!(book.place(client("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_client_that_left_leaves_nothing_behind() {
        let book = book(9, 3);
        drop([book.place(client("192.0.2.1")).unwrap(), book.place(client("192.0.2.1")).unwrap()]);
        assert!(book.clients.is_empty());
    }
}
