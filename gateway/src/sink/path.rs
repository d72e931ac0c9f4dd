//! Paths and parameters of MAIL and RCPT (RFC 5321, section 4.1.2), as far as a sink must understand them: strict about
//! the shape, indifferent to the rest.

/// A path and what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathArgument<'a> {
    /// The mailbox, without brackets and source route; empty for `<>`.
    pub(super) mailbox: &'a str,
    /// The parameters as they were sent.
    parameters: &'a str,
}

/// Why a path is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathFault {
    /// No brackets, or something behind them.
    Syntax,
    /// Brackets around what is no mailbox.
    Mailbox,
}

impl<'a> PathArgument<'a> {
    /// Reads what stands behind `FROM:` or `TO:`.
    pub(super) fn parse(text: &'a str) -> Result<Self, PathFault> {
        let inner = text.strip_prefix('<').ok_or(PathFault::Syntax)?;
        let end = closing_bracket(inner).ok_or(PathFault::Syntax)?;
        let (path, rest) = (&inner[..end], &inner[end + 1..]);
        if !rest.is_empty() && !rest.starts_with(' ') {
            return Err(PathFault::Syntax);
        }
        if path.contains(char::is_control) {
            return Err(PathFault::Mailbox);
        }
        let mailbox = match path.strip_prefix('@') {
            // A source route is read and forgotten (RFC 5321, appendix C).
            Some(route) => route.split_once(':').ok_or(PathFault::Mailbox)?.1,
            None => path,
        };
        Ok(Self { mailbox, parameters: rest })
    }

    /// The parameters, as keyword and value.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let words = self.parameters.split(' ').filter(|word| !word.is_empty());
        words.map(|word| word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value))))
    }

    /// The domain, if the mailbox has the shape of one that has a domain.
    pub(super) fn domain(&self) -> Option<&'a str> {
        let (local_part, domain) = self.mailbox.rsplit_once('@')?;
        (is_local_part(local_part) && is_domain(domain)).then_some(domain)
    }
}

/// Where the path ends: at the first `>` that is not within quotes.
fn closing_bracket(path: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.bytes().position(|byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match byte {
            _ if was_escaped => false,
            b'"' => {
                quoted = !quoted;
                false
            }
            b'\\' => {
                escaped = quoted;
                false
            }
            b'>' => !quoted,
            _ => false,
        }
    })
}

fn is_local_part(text: &str) -> bool {
    let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    quoted || !text.is_empty() && !text.contains([' ', '"', '<', '>', '@', ',', ';', ':', '(', ')', '[', ']', '\\'])
}

fn is_domain(text: &str) -> bool {
    let literal = text.starts_with('[') && text.ends_with(']');
    let name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_') || !c.is_ascii();
    !text.is_empty() && (literal || text.chars().all(name))
}

/// Whether `text` is xtext (RFC 3461, section 4).
pub(super) fn is_xtext(text: &str) -> bool {
    xtext(text).is_some()
}

/// What xtext means; `None` if it is not xtext. Hex digits must be upper case, as the RFC has them.
pub(super) fn xtext(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => (hex(bytes.next()?)? << 4) | hex(bytes.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => byte,
            _ => return None,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
