//! A worker's scratch space: one read buffer and one [`Output`], lent to whichever session is being polled.

use std::cell::RefCell;

use zeroize::Zeroize as _;

use crate::session::Output;
use crate::tls::Wire;

/// Bytes read at once. Bulk costs halve from 8 KiB to 64 KiB; beyond, little is won.
pub(super) const READ_MAX: usize = 64 * 1024;
/// As deep as the calls go that see what a client says.
const STACK_WIPED: usize = 16 * 1024;
/// An output buffer that grew beyond this in one poll is not kept.
const KEPT_MAX: usize = 256 * 1024;

pub(super) struct Scratch {
    pub(super) read: Box<[u8]>,
    pub(super) out: Output,
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Runs `work` with the worker's scratch space.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let fresh = || Scratch { read: vec![0; 2 * READ_MAX].into(), out: Output::default() };
    let mut scratch = SCRATCH.with(|cell| cell.borrow_mut().take()).unwrap_or_else(fresh);
    let result = work(&mut scratch);
    if std::mem::take(&mut scratch.out.secret) {
        wipe(&mut scratch);
        wipe_stack();
    }
    let Output { to_client, to_backend, actions, heard, secret: _ } = &mut scratch.out;
    *heard = None;
    to_client.clear();
    to_backend.clear();
    actions.clear();
    if to_client.capacity().max(to_backend.capacity()) <= KEPT_MAX {
        SCRATCH.with(|cell| *cell.borrow_mut() = Some(scratch));
    }
    result
}

/// Secrets passed through. What is out of reach is rustls's own copy of each record that a client sends: it is given back to the
/// allocator as it is.
fn wipe(scratch: &mut Scratch) {
    scratch.read.zeroize();
    scratch.out.to_backend.zeroize();
    TLS_SCRATCH.with(|cell| {
        if let Some(tls) = &mut *cell.borrow_mut() {
            tls.cipher.zeroize();
        }
    });
}

/// What looked for a line's end had parts of it in vector registers, which may lie where they were put down. The stack of
/// whatever was called is where this function's own is.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u8; STACK_WIPED];
    below.zeroize();
    std::hint::black_box(&mut below);
}

/// What TLS needs besides: bytes as they came, and bytes as they go.
pub(super) struct TlsScratch {
    pub(super) cipher: Box<[u8]>,
    pub(super) wire: Wire,
}

thread_local! {
    static TLS_SCRATCH: RefCell<Option<Box<TlsScratch>>> = const { RefCell::new(None) };
}

/// Runs `work` with the worker's scratch space for TLS, which a worker without TLS never has.
pub(super) fn with_tls_scratch<T>(work: impl FnOnce(&mut TlsScratch) -> T) -> T {
    let fresh = || Box::new(TlsScratch { cipher: vec![0; 2 * READ_MAX].into(), wire: Wire::default() });
    let mut scratch = TLS_SCRATCH.with(|cell| cell.borrow_mut().take()).unwrap_or_else(fresh);
    let result = work(&mut scratch);
    scratch.wire.clear();
    if scratch.wire.capacity() <= KEPT_MAX {
        TLS_SCRATCH.with(|cell| *cell.borrow_mut() = Some(scratch));
    }
    result
}

/// Keeps what is left of what was read, in a buffer of exactly that size.
pub(super) fn keep(kept: &mut Box<[u8]>, left: &[u8]) {
    if kept.len() == left.len() {
        kept.copy_from_slice(left);
    } else {
        *kept = left.into();
    }
}

/// Bytes that a socket has not taken yet. Mostly there are none.
#[derive(Debug, Default)]
pub(super) struct Pending(Option<Box<Untaken>>);

#[derive(Debug, Default)]
struct Untaken {
    /// More than `start`.
    bytes: Vec<u8>,
    start: usize,
    /// There are secrets among them.
    is_secret: bool,
}

impl Drop for Untaken {
    fn drop(&mut self) {
        if self.is_secret {
            self.bytes.zeroize();
        }
    }
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |untaken| &untaken.bytes[untaken.start..])
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().bytes.extend_from_slice(bytes);
        }
    }

    /// What is kept is wiped when it has left, or is given up.
    pub(super) fn keep_secret(&mut self) {
        if let Some(untaken) = &mut self.0 {
            untaken.is_secret = true;
        }
    }

    /// `count` bytes were taken; an emptied buffer gives its memory back.
    pub(super) fn advance(&mut self, count: usize) {
        if let Some(untaken) = &mut self.0 {
            untaken.start += count;
            if untaken.start == untaken.bytes.len() {
                self.0 = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says this to a worker's scratch space; whether what reads it next finds it there.
    fn is_found_next(text: &[u8], secret: bool) -> bool {
        with_scratch(|scratch| {
            scratch.read[..text.len()].copy_from_slice(text);
            scratch.out.to_backend.extend_from_slice(text);
            scratch.out.secret = secret;
            with_tls_scratch(|tls| tls.cipher[..text.len()].copy_from_slice(text));
        });
        with_scratch(|scratch| {
            let is_read = scratch.read.starts_with(text);
            assert!(scratch.out.to_backend.is_empty() && !scratch.out.secret);
            let is_cipher = with_tls_scratch(|tls| tls.cipher.starts_with(text));
            assert_eq!(is_read, is_cipher);
            assert!(is_read || scratch.read.iter().all(|byte| *byte == 0), "a part of it is left");
            is_read
        })
    }

    #[test]
    fn secrets_are_wiped_and_nothing_else_is() {
        assert!(is_found_next(b"MAIL FROM:<>", false));
        assert!(!is_found_next(b"AUTH PLAIN AHUAcHc=", true));
    }

    #[test]
    fn what_a_socket_took_late_is_no_secret_any_more() {
        let is_secret = |pending: &Pending| pending.0.as_ref().is_some_and(|untaken| untaken.is_secret);
        let mut pending = Pending::default();
        pending.keep_secret();
        assert!(!is_secret(&pending), "there is nothing to keep");
        pending.push(b"AUTH PLAIN AHUAcHc=");
        pending.keep_secret();
        pending.advance(5);
        assert!(is_secret(&pending) && pending.as_slice() == b"PLAIN AHUAcHc=");
        pending.advance(14);
        assert!(pending.is_empty() && pending.0.is_none());
    }
}
