//! Bytes for the wire, and memory for them that is used again.

/// Bytes for the wire. The memory stays, so that encrypting into it clears nothing first.
#[derive(Debug, Default)]
pub struct Wire {
    bytes: Vec<u8>,
    end: usize,
}

impl Wire {
    /// What is to be sent, in order.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// It was sent, or kept elsewhere.
    pub fn clear(&mut self) {
        self.end = 0;
    }

    /// Bytes that it could take without growing.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Has `write` write into at least `length` free bytes; more, if it says that it needs more.
    pub(super) fn write<E>(
        &mut self,
        mut length: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
        needs: impl Fn(&E) -> Option<usize>,
    ) -> Result<(), E> {
        loop {
            if self.bytes.len() < self.end + length {
                self.bytes.resize(self.end + length, 0);
            }
            match write(&mut self.bytes[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) => match needs(&error) {
                    Some(needed) if needed > length => length = needed,
                    _ => return Err(error),
                },
            }
        }
    }
}
