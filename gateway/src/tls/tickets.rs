//! The keys of session tickets: a client that comes again brings its session along, sealed, and the gateway keeps nothing.
//!
//! A key is used for six hours, and known for six more. Keys can be exported, so that a gateway that takes over from another
//! can open what that one has sealed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How long a key seals, in seconds.
const PERIOD: u64 = 6 * 3600;
const NAME_LENGTH: usize = 16;
const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 12;
/// Tickets hold no client certificates, so they are short.
const TICKET_MAX: usize = 4096;

/// The system gives no random bytes.
#[derive(Debug, Error)]
#[error("the system gives no random bytes for the keys of TLS tickets")]
pub struct NoRandom;

/// The ticket keys of a gateway, shared by all its listeners.
pub struct TicketKeys(RwLock<Arc<Ring>>);

/// Keys, newest first; at most two.
struct Ring(Vec<Key>);

struct Key {
    name: [u8; NAME_LENGTH],
    secret: [u8; KEY_LENGTH],
    /// In seconds since 1970.
    since: u64,
    cipher: RandomizedNonceKey,
}

/// Keys on their way to another process of the same gateway: name, secret, and since when, newest first.
#[derive(Serialize, Deserialize)]
pub struct ExportedKeys(pub Vec<([u8; NAME_LENGTH], [u8; KEY_LENGTH], u64)>);

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

impl fmt::Debug for ExportedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExportedKeys")
    }
}

impl Key {
    fn of(name: [u8; NAME_LENGTH], secret: [u8; KEY_LENGTH], since: u64) -> Result<Self, NoRandom> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &secret).map_err(|_| NoRandom)?;
        Ok(Self { name, secret, since, cipher })
    }

    fn fresh(now: u64) -> Result<Self, NoRandom> {
        let (mut name, mut secret) = ([0; NAME_LENGTH], [0; KEY_LENGTH]);
        rand::fill(&mut name).and_then(|()| rand::fill(&mut secret)).map_err(|_| NoRandom)?;
        Self::of(name, secret, now)
    }

    fn copy(&self) -> Result<Self, NoRandom> {
        Self::of(self.name, self.secret, self.since)
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.cipher.seal_in_place_append_tag(Aad::from(self.name), &mut sealed).ok()?;
        Some([&self.name[..], &nonce.as_ref()[..], &sealed].concat())
    }

    fn open(&self, nonce: [u8; NONCE_LENGTH], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.cipher.open_in_place(nonce, Aad::from(self.name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl TicketKeys {
    /// With a fresh key.
    ///
    /// # Errors
    /// `NoRandom`.
    pub fn new() -> Result<Self, NoRandom> {
        Ok(Self(RwLock::new(Arc::new(Ring(vec![Key::fresh(now())?])))))
    }

    /// With the keys of the process that this one takes over from.
    ///
    /// # Errors
    /// `NoRandom`.
    pub fn import(keys: &ExportedKeys) -> Result<Self, NoRandom> {
        let known = keys.0.iter().take(2).filter(|(.., since)| now().saturating_sub(*since) < 2 * PERIOD);
        let mut ring =
            known.map(|(name, secret, since)| Key::of(*name, *secret, *since)).collect::<Result<Vec<_>, _>>()?;
        if ring.is_empty() {
            ring.push(Key::fresh(now())?);
        }
        Ok(Self(RwLock::new(Arc::new(Ring(ring)))))
    }

    /// For the process that takes over.
    pub fn export(&self) -> ExportedKeys {
        ExportedKeys(self.ring().0.iter().map(|key| (key.name, key.secret, key.since)).collect())
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ring, after a new key was put in front of one whose time is over. Without random bytes the old key goes on.
    fn ring_at(&self, now: u64) -> Arc<Ring> {
        let ring = self.ring();
        let is_due = |ring: &Ring| ring.0.first().is_none_or(|key| now.saturating_sub(key.since) >= PERIOD);
        if !is_due(&ring) {
            return ring;
        }
        let mut ring = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if is_due(&ring)
            && let Ok(fresh) = Key::fresh(now)
        {
            let last = ring.0.first().filter(|key| now.saturating_sub(key.since) < 2 * PERIOD);
            let last = last.and_then(|key| key.copy().ok());
            *ring = Arc::new(Ring(std::iter::once(fresh).chain(last).collect()));
        }
        ring.clone()
    }

    fn seal_at(&self, now: u64, plain: &[u8]) -> Option<Vec<u8>> {
        self.ring_at(now).0.first()?.seal(plain)
    }

    fn open_at(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_LENGTH>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>()?;
        let ring = self.ring_at(now);
        let key = ring.0.iter().find(|key| key.name == *name)?;
        key.open(*nonce, sealed)
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(2 * PERIOD).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal_at(now(), plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open_at(now(), cipher)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_for_its_key_s_time_and_as_long_again() {
        let keys = TicketKeys::new().unwrap();
        let start = now();
        let ticket = keys.seal_at(start, b"session").unwrap();
        assert_eq!(keys.open_at(start, &ticket).as_deref(), Some(&b"session"[..]));
        let second = keys.seal_at(start + PERIOD, b"second").unwrap();
        assert_ne!(ticket[..NAME_LENGTH], second[..NAME_LENGTH]);
        assert_eq!(keys.open_at(start + PERIOD, &ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(keys.open_at(start + 2 * PERIOD, &ticket), None);
        assert_eq!(keys.open_at(start + 2 * PERIOD, &second).as_deref(), Some(&b"second"[..]));
        assert!(keys.ring().0.len() <= 2);
    }

    #[test]
    fn after_a_long_rest_no_old_key_is_known() {
        let keys = TicketKeys::new().unwrap();
        let ticket = keys.seal_at(now(), b"session").unwrap();
        assert_eq!(keys.open_at(now() + 2 * PERIOD, &ticket), None);
        assert_eq!(keys.ring().0.len(), 1);
    }

    #[test]
    fn a_changed_ticket_opens_nothing() {
        let keys = TicketKeys::new().unwrap();
        let ticket = keys.seal_at(now(), b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.open_at(now(), &changed), None, "byte {at}");
            assert_eq!(keys.open_at(now(), &ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(keys.open_at(now(), &vec![0; TICKET_MAX + 1]), None);
    }

    #[test]
    fn keys_go_over_to_another_process() {
        let keys = TicketKeys::new().unwrap();
        let ticket = keys.seal_at(now(), b"session").unwrap();
        let other = TicketKeys::import(&keys.export()).unwrap();
        assert_eq!(other.open_at(now(), &ticket).as_deref(), Some(&b"session"[..]));
        let back = other.seal_at(now(), b"back").unwrap();
        assert_eq!(keys.open_at(now(), &back).as_deref(), Some(&b"back"[..]));
        let stale = ExportedKeys(vec![([1; 16], [2; 32], now() - 2 * PERIOD)]);
        assert_ne!(TicketKeys::import(&stale).unwrap().ring().0[0].name, [1; 16]);
    }
}
