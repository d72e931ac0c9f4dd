//! What a smuggled message begins with: a command, at the beginning of the line behind a look-alike of the end of data.

/// Most bytes that can be the beginning of a command and not yet the whole of what tells one.
pub(super) const UNDECIDED_MAX: usize = 16;

/// Whether a line is a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Yes,
    No,
    /// It may become one.
    Undecided,
}

/// What tells a command: letters in any case, then `\n` for any newline, `_` for white space, or letters again.
const COMMANDS: [&[u8]; 13] = [
    b"MAIL_FROM:",
    b"RCPT_TO:",
    b"DATA\n",
    b"EHLO_",
    b"HELO_",
    b"RSET\n",
    b"NOOP\n",
    b"QUIT\n",
    b"BDAT_",
    b"STARTTLS\n",
    b"XCLIENT_",
    b"XFORWARD_",
    b"VRFY_",
];

/// Judges the beginning of a line.
pub(super) fn command(line: &[u8]) -> Command {
    let mut verdict = Command::No;
    for pattern in COMMANDS {
        match matches(pattern, line) {
            Command::No => {}
            Command::Undecided => verdict = Command::Undecided,
            Command::Yes => return Command::Yes,
        }
    }
    verdict
}

fn matches(pattern: &[u8], line: &[u8]) -> Command {
    for (index, &wanted) in pattern.iter().enumerate() {
        let Some(&byte) = line.get(index) else { return Command::Undecided };
        let same = match wanted {
            b'\n' => matches!(byte, b'\r' | b'\n'),
            b'_' => matches!(byte, b' ' | b'\t'),
            _ => byte.eq_ignore_ascii_case(&wanted),
        };
        if !same {
            return Command::No;
        }
    }
    Command::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_what_only_looks_like_them() {
        for line in [
            "MAIL FROM:<a@b.example>",
            "mail from:<>",
            "RCPT\tTO:<a@b.example>",
            "DATA\r\n",
            "data\n",
            "EHLO x",
            "NOOP\r\n",
            "NOOP\n",
            "QUIT\r",
            "BDAT 5 LAST",
            "STARTTLS\r\n",
        ] {
            assert_eq!(command(line.as_bytes()), Command::Yes, "{line:?}");
        }
        for line in ["Mail from Bob", "Data was lost", "Help me", "noop!", "\r\n", ".", "QUITE", "MAILS"] {
            assert_eq!(command(line.as_bytes()), Command::No, "{line:?}");
        }
        for line in ["", "M", "mail", "MAIL FROM", "DATA", "starttls", "x"] {
            assert_eq!(command(line.as_bytes()), Command::Undecided, "{line:?}");
        }
    }

    #[test]
    fn what_is_undecided_is_short() {
        assert!(COMMANDS.iter().all(|pattern| pattern.len() <= UNDECIDED_MAX - 2));
    }
}
