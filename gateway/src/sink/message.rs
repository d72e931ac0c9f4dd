//! A message on its way in: counted, hashed if somebody observes, written if there is a Maildir, never held.

use std::io;

use super::maildir::Draft;

/// The largest message taken, and what SIZE says.
pub(super) const SIZE_MAX: u64 = 1 << 30;

/// FNV-1a of 64 bits over a message as it was sent, dots unstuffed: what [`Message::digest`](super::Message::digest)
/// holds. It tells whether two bodies are the same, and is no protection against anybody.
pub fn digest(bytes: &[u8]) -> u64 {
    Digest::default().and(bytes).0
}

#[derive(Debug, Clone, Copy)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn and(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }
}

/// A message whose end has not been seen.
#[derive(Debug)]
pub(super) struct Incoming {
    size: u64,
    digest: Option<Digest>,
    draft: Option<Draft>,
    storage: io::Result<()>,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was taken, and kept if there is a Maildir.
    Taken,
    /// It is larger than [`SIZE_MAX`].
    TooBig,
    /// It could not be written.
    NotStored,
}

impl Incoming {
    /// A message that has just begun. `hashed`: somebody will ask for its digest.
    pub(super) fn new(draft: Option<Draft>, hashed: bool) -> Self {
        Self { size: 0, digest: hashed.then(Digest::default), draft, storage: Ok(()) }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.size > SIZE_MAX {
            self.draft = None;
            return;
        }
        self.digest = self.digest.map(|digest| digest.and(bytes));
        if let Some(draft) = &mut self.draft
            && let Err(error) = draft.write(bytes)
        {
            self.storage = Err(error);
            self.draft = None;
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.map_or(0, |digest| digest.0)
    }

    /// Keeps the message. A message that is dropped instead leaves nothing behind.
    pub(super) fn finish(&mut self) -> Verdict {
        if self.size > SIZE_MAX {
            return Verdict::TooBig;
        }
        if let Some(draft) = self.draft.take() {
            self.storage = draft.commit();
        }
        match &self.storage {
            Ok(()) => Verdict::Taken,
            Err(error) => {
                // Standard error and not a reply: what is wrong with this disk is not the client's to know.
                eprintln!("sink: a message was not written to the Maildir: {error}");
                Verdict::NotStored
            }
        }
    }
}
