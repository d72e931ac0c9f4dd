//! What a server has taken of an envelope, to be said to another should the first be lost.
//!
//! Kept only where the backend has several servers, and only until the message itself begins.

use crate::smtp::ehlo::Extensions;

/// Longest envelope that is kept, in bytes; a longer one is lost with its server.
const KEPT_MAX: usize = 64 * 1024;

/// How often an envelope is said to another server. A message that brings down whoever gets it must not go round all of them.
const REPLAYS_MAX: u8 = 2;

/// The commands of a transaction: MAIL, each RCPT that was accepted, and then those whose answers have not come.
#[derive(Debug)]
pub(super) struct KeptEnvelope {
    /// Encoded, one behind the other.
    commands: Vec<u8>,
    replays: u8,
    /// Extensions that the transaction uses; what it says while it is open counts before this.
    pub(super) needs: Extensions,
}

impl KeptEnvelope {
    /// Of a transaction that begins with this MAIL.
    pub(super) fn new(mail: &[u8]) -> Self {
        Self { commands: mail.to_vec(), replays: 0, needs: Extensions::default() }
    }

    /// A RCPT was sent. False if the envelope has become longer than may be kept.
    pub(super) fn push(&mut self, rcpt: &[u8]) -> bool {
        self.commands.extend_from_slice(rcpt);
        self.commands.len() <= KEPT_MAX
    }

    /// The RCPT with this number, MAIL being 0, was refused.
    pub(super) fn remove(&mut self, number: usize) {
        let start = self.start(number);
        self.commands.drain(start..self.start(number + 1));
    }

    /// The command with this number.
    pub(super) fn command(&self, number: usize) -> &[u8] {
        &self.commands[self.start(number)..self.start(number + 1)]
    }

    /// The commands from this number on.
    pub(super) fn from(&self, number: usize) -> &[u8] {
        &self.commands[self.start(number)..]
    }

    /// How many commands it has.
    pub(super) fn len(&self) -> usize {
        memchr::memchr_iter(b'\n', &self.commands).count()
    }

    /// Counts one replay more, if there may be another.
    pub(super) fn may_be_replayed(&mut self) -> bool {
        let may = self.replays < REPLAYS_MAX;
        self.replays += u8::from(may);
        may
    }

    fn start(&self, number: usize) -> usize {
        match number.checked_sub(1) {
            None => 0,
            Some(before) => {
                memchr::memchr_iter(b'\n', &self.commands).nth(before).map_or(self.commands.len(), |end| end + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_recipients_leave_no_trace() {
        let mut kept = KeptEnvelope::new(b"MAIL\r\n");
        for rcpt in ["RCPT a\r\n", "RCPT b\r\n", "RCPT c\r\n"] {
            assert!(kept.push(rcpt.as_bytes()));
        }
        kept.remove(2);
        assert_eq!((kept.len(), kept.command(0), kept.command(2)), (3, &b"MAIL\r\n"[..], &b"RCPT c\r\n"[..]));
        assert_eq!(kept.from(1), b"RCPT a\r\nRCPT c\r\n");
        kept.remove(2);
        kept.remove(1);
        kept.remove(1);
        assert_eq!((kept.from(0), kept.from(1)), (&b"MAIL\r\n"[..], &b""[..]));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut kept = KeptEnvelope::new(b"MAIL\r\n");
        let rcpt = [b'x'; 2048];
        let pushed = std::iter::repeat_with(|| kept.push(&rcpt)).take_while(|fits| *fits).count();
        assert_eq!(pushed, 31);
        assert_eq!([0; 4].map(|_| kept.may_be_replayed()), [true, true, false, false]);
    }
}
