//! What STARTTLS asks of whoever begins TLS (RFC 3207 section 6).

/// That no byte waits unread when TLS begins. Whatever came in clear behind STARTTLS, or behind the 220 to it, would be
/// read as if it had come through TLS; who has this has looked.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it is for whoever begins TLS"]
pub struct NothingBuffered(());

impl NothingBuffered {
    /// `unread` is all that was read and not yet used.
    pub fn check(unread: &[u8]) -> Option<Self> {
        unread.is_empty().then_some(Self(()))
    }
}

/// Whether this begins a TLS handshake: a record of type 22, of some version 3 (RFC 8446 section 5.1).
pub fn begins_handshake(input: &[u8]) -> bool {
    matches!(input, [22, 3, 0..=4, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_too_many() {
        assert!(NothingBuffered::check(b"").is_some());
        assert!(NothingBuffered::check(b"\r").is_none());
    }

    #[test]
    fn a_handshake_is_known_by_three_octets() {
        assert!(begins_handshake(&[22, 3, 1]) && begins_handshake(&[22, 3, 3, 0, 200]));
        for other in [&b"EHLO client"[..], &[22, 3], &[22, 4, 0], &[23, 3, 3], b""] {
            assert!(!begins_handshake(other), "{other:?}");
        }
    }
}
