//! A message that comes in chunks (RFC 3030): what is kept of it between them, and inside one.

use crate::smtp::body::{BodyFault, BodyRules, BodyTranscoder, Framing};
use crate::time::Millis;

use super::message::{Content, Fate, RateWindow};
use super::report::MessageReport;

/// BDAT within one transaction (RFC 3030 section 2).
#[derive(Debug)]
pub(super) enum Chunks {
    /// None yet: DATA is still possible.
    None,
    /// A BDAT went to the backend.
    Started(Box<Started>),
    /// A chunk failed: only RSET helps.
    Broken,
}

/// A message that comes in chunks.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) content: Content,
    /// None: BODY=BINARYMIME, which is nobody's to look at.
    pub(super) text: Option<Text>,
    /// Octets so far.
    pub(super) size: u64,
    /// When the last of them must have come.
    pub(super) until: Millis,
}

impl Started {
    /// What stands before the message, if it begins with this or is over without an octet.
    pub(super) fn take_trace(&mut self, head: &[u8]) -> Vec<u8> {
        // Whether an LF follows a CR is not looked at in binary content, so a CR is never taken for an empty line there.
        let known = if self.text.is_some() { head } else { &head[..head.len().min(1)] };
        self.content.take_trace(known)
    }
}

/// Inside the octets of one BDAT.
#[derive(Debug)]
pub(super) struct ChunkState {
    /// Octets that have not come, or were not taken yet.
    pub(super) remaining: u64,
    pub(super) last: bool,
    pub(super) announced: Announced,
    pub(super) fate: Fate,
    pub(super) rate: RateWindow,
    pub(super) discarded: u64,
    /// Of a message that was given up before or inside this chunk; the chunk's answer is its own.
    pub(super) report: Option<Box<MessageReport>>,
}

/// What the backend was told of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announced {
    /// Nothing: it hears of it with the first octet.
    No,
    /// That octets come, this many more of them, and whether the message ends with them.
    Yes { room: u64, last: bool },
}

/// The text of a message in chunks.
#[derive(Debug)]
pub(super) struct Text {
    transcoder: BodyTranscoder,
    /// The end of the last chunk, which only the next one decides.
    undecided: Vec<u8>,
}

impl Text {
    pub(super) fn new() -> Self {
        Self { transcoder: BodyTranscoder::new(Framing::Octets), undecided: Vec::new() }
    }

    /// Takes the head of `piece`; `ends` if it is the end of its chunk, `last` if of the message. How much of it was used,
    /// how much of it stands at its head to be sent on, unless that is in `spill`, and what is wrong with it.
    pub(super) fn take(
        &mut self,
        piece: &mut [u8],
        (ends, last): (bool, bool),
        rules: &BodyRules,
        spill: &mut Vec<u8>,
    ) -> (usize, usize, Option<BodyFault>) {
        if self.undecided.is_empty() {
            let (used, in_place, fault) = self.transcode(piece, last, rules, spill);
            if !ends || fault.is_some() {
                return (used, in_place, fault);
            }
            self.undecided.extend_from_slice(&piece[used..]);
            return (piece.len(), in_place, None);
        }
        // Rare: a chunk ended inside a newline.
        let mut whole = std::mem::take(&mut self.undecided);
        whole.extend_from_slice(piece);
        let (used, in_place, fault) = self.transcode(&mut whole, last, rules, spill);
        spill.extend_from_slice(&whole[..in_place]);
        self.undecided.extend_from_slice(&whole[used..]);
        (piece.len(), 0, fault)
    }

    /// Steps through `input` as far as it is decided: in place if nothing in it must be written anew.
    fn transcode(
        &mut self,
        input: &mut [u8],
        last: bool,
        rules: &BodyRules,
        spill: &mut Vec<u8>,
    ) -> (usize, usize, Option<BodyFault>) {
        let mut step = |input: &mut [u8], spill: &mut Vec<u8>| match last {
            true => self.transcoder.last_step(input, rules, spill),
            false => self.transcoder.step(input, rules, spill),
        };
        let mark = spill.len();
        let first = step(input, spill);
        let (mut used, in_place) = (first.used, first.content);
        let mut fault = first.fault;
        while used < input.len() && fault.is_none() {
            let next = step(&mut input[used..], spill);
            fault = next.fault;
            if next.used == 0 {
                break;
            }
            if used == first.used {
                spill.splice(mark..mark, input[in_place.clone()].iter().copied());
            }
            spill.extend_from_slice(&input[used..][next.content]);
            used += next.used;
        }
        let in_place = if used == first.used { in_place.len() } else { 0 };
        (used, in_place, fault)
    }
}
