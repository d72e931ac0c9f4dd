//! A fuzzer's bytes as choices. What is missing reads as zero, so that every input means something.

/// What is left of the bytes.
#[derive(Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte.
    pub(super) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    /// Whether the next byte is odd.
    pub(super) fn coin(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One of these.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// As many bytes as the next one says, and are there.
    pub(super) fn string(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        string
    }

    /// Lengths of pieces, at least one.
    pub(super) fn cuts(&mut self) -> Vec<usize> {
        let cuts: Vec<usize> = self.string().iter().map(|&byte| usize::from(byte).max(1)).collect();
        if cuts.is_empty() { vec![1] } else { cuts }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `stream` in pieces of these lengths, over and over.
pub(super) fn pieces<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &cut in cuts.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at(cut.min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}
