//! xtext (RFC 3461 section 4).

/// Appends `value` as xtext: bytes outside 33–126, `+` and `=` become `+HH` in upper-case hex.
pub fn encode_into(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        if matches!(byte, b'!'..=b'~') && byte != b'+' && byte != b'=' {
            out.push(byte);
        } else {
            out.extend([b'+', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Decodes xtext. `None` if it is not well-formed: lower-case hex, a lone `+`, `=`, or a byte outside 33–126.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        value.push(match byte {
            b'+' => hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => byte,
            _ => return None,
        });
    }
    Some(value)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodes_what_must_be() {
        for (value, text) in
            [("client.example", "client.example"), ("a b", "a+20b"), ("a+b=c", "a+2Bb+3Dc"), ("ü\r\n", "+C3+BC+0D+0A")]
        {
            let mut out = Vec::new();
            encode_into(value.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }

    #[test]
    fn refuses_what_is_no_xtext() {
        for text in ["+", "+2", "+2b", "+GG", "a=b", "a b", "ü"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(value: Vec<u8>) {
            let mut text = Vec::new();
            encode_into(&value, &mut text);
            prop_assert!(text.iter().all(|b| (33..=126).contains(b)));
            prop_assert_eq!(decode(&text), Some(value));
        }
    }
}
