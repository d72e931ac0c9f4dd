//! xtext (RFC 3461 section 4).

/// Appends `value` as xtext: bytes outside 33–126, `+` and `=` become `+HH` in upper-case hex.
pub fn encode_into(value: &[u8], out: &mut Vec<u8>) {
    let _ = (value, out);
    todo!()
}

/// Decodes xtext. `None` if it is not well-formed.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let _ = text;
    todo!()
}
