//! What was sent beside what a transcript expects.

/// Takes the next line of what was sent, which must be as expected; behind `…` anything may follow.
pub(super) fn expect_line(sent: &mut Vec<u8>, expected: &str) -> Result<(), String> {
    let Some(length) = sent.windows(2).position(|pair| pair == b"\r\n") else {
        return Err(format!("no line came, only `{}`", shown(sent)));
    };
    let line: Vec<u8> = sent.drain(..length + 2).take(length).collect();
    let line = String::from_utf8_lossy(&line);
    if matches(&line, expected) { Ok(()) } else { Err(format!("`{line}` came")) }
}

/// The same of bytes.
pub(super) fn expect_bytes(sent: &mut Vec<u8>, expected: &[u8]) -> Result<(), String> {
    if sent.starts_with(expected) {
        sent.drain(..expected.len());
        return Ok(());
    }
    Err(format!("`{}` came", shown(sent)))
}

/// Bytes for an error message.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    let more = if bytes.len() > SHOWN_MAX { "…" } else { "" };
    format!("{}{more}", bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii())
}

/// Whether a text is as expected.
pub(super) fn matches(text: &str, expected: &str) -> bool {
    match expected.strip_suffix('…') {
        Some(head) => text.starts_with(head),
        None => text == expected,
    }
}
