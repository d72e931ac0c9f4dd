//! AUTH and its SASL exchange (RFC 4954): the command, mechanisms, and responses in base64.
//!
//! A response is read and written anew like everything else; what it holds is wiped when it is dropped. Mechanisms are an
//! allow-list: one that binds to the connection or its encryption (EXTERNAL, GSSAPI, NTLM, `-PLUS`) would fail behind a
//! gateway, and one that lets everybody in (ANONYMOUS) would make it an open relay.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bitflags::bitflags;
use zeroize::Zeroizing;

use super::command::{CommandError, fault};
use super::reply::EnhancedCode;

mod name;

pub use name::Login;

/// Longest line of an exchange, CRLF included, in bytes (RFC 4954 section 4).
pub const AUTH_LINE_MAX: usize = 12_288;

/// Missing padding is no ambiguity, and what goes on has it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const SYNTAX: CommandError = fault(501, EnhancedCode(5, 5, 4), "Syntax: AUTH mechanism [initial response]");
/// To a response that is no base64 (RFC 4954 section 4).
pub const NOT_BASE64: CommandError = fault(501, EnhancedCode(5, 5, 2), "The response is no base64");

bitflags! {
    /// SASL mechanisms that the gateway knows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Mechanisms: u16 {
        /// RFC 7677, SHA-512.
        const SCRAM_SHA_512 = 1;
        /// RFC 7677.
        const SCRAM_SHA_256 = 1 << 1;
        /// RFC 5802.
        const SCRAM_SHA_1 = 1 << 2;
        /// RFC 2831.
        const DIGEST_MD5 = 1 << 3;
        /// RFC 2195.
        const CRAM_MD5 = 1 << 4;
        /// RFC 4616.
        const PLAIN = 1 << 5;
        /// draft-murchison-sasl-login.
        const LOGIN = 1 << 6;
        /// RFC 7628.
        const OAUTHBEARER = 1 << 7;
        /// Google's and Microsoft's.
        const XOAUTH2 = 1 << 8;
        /// With channel binding: never passed on.
        const SCRAM_SHA_512_PLUS = 1 << 9;
        /// Likewise.
        const SCRAM_SHA_256_PLUS = 1 << 10;
        /// Likewise.
        const SCRAM_SHA_1_PLUS = 1 << 11;
    }
}

const NAMES: [(&str, Mechanisms); 12] = [
    ("SCRAM-SHA-512", Mechanisms::SCRAM_SHA_512),
    ("SCRAM-SHA-256", Mechanisms::SCRAM_SHA_256),
    ("SCRAM-SHA-1", Mechanisms::SCRAM_SHA_1),
    ("DIGEST-MD5", Mechanisms::DIGEST_MD5),
    ("CRAM-MD5", Mechanisms::CRAM_MD5),
    ("PLAIN", Mechanisms::PLAIN),
    ("LOGIN", Mechanisms::LOGIN),
    ("OAUTHBEARER", Mechanisms::OAUTHBEARER),
    ("XOAUTH2", Mechanisms::XOAUTH2),
    ("SCRAM-SHA-512-PLUS", Mechanisms::SCRAM_SHA_512_PLUS),
    ("SCRAM-SHA-256-PLUS", Mechanisms::SCRAM_SHA_256_PLUS),
    ("SCRAM-SHA-1-PLUS", Mechanisms::SCRAM_SHA_1_PLUS),
];

/// A mechanism, and the one that binds it to the connection's encryption.
const BOUND: [(Mechanisms, Mechanisms); 3] = [
    (Mechanisms::SCRAM_SHA_512, Mechanisms::SCRAM_SHA_512_PLUS),
    (Mechanisms::SCRAM_SHA_256, Mechanisms::SCRAM_SHA_256_PLUS),
    (Mechanisms::SCRAM_SHA_1, Mechanisms::SCRAM_SHA_1_PLUS),
];

impl Mechanisms {
    /// The mechanism of this name; nothing if the gateway does not know it. Case does not matter.
    pub fn named(name: &[u8]) -> Self {
        let known = NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        known.map_or(Self::empty(), |(_, mechanism)| *mechanism)
    }

    /// Of what a backend offers, what works through a gateway. Where it binds a mechanism to the encryption as well, a client
    /// that can do so too and is not offered it must be taken for one that was tampered with (RFC 5802 section 6), so
    /// neither is offered.
    pub fn relayable(self) -> Self {
        BOUND
            .iter()
            .fold(self, |left, (plain, bound)| if self.intersects(*bound) { left - *plain - *bound } else { left })
    }

    /// Of these, those in which the client says who it is before the server says anything of its own.
    pub fn client_first(self) -> Self {
        self - Self::CRAM_MD5 - Self::DIGEST_MD5
    }

    /// What a server says to a client that begins one of those without its response. LOGIN asks in words.
    pub fn first_challenge(self) -> &'static [u8] {
        if self == Self::LOGIN { b"334 VXNlcm5hbWU6\r\n" } else { b"334 \r\n" }
    }

    /// Their names, strongest first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(_, mechanism)| self.intersects(*mechanism)).map(|(name, _)| *name)
    }
}

/// What stands behind AUTH.
#[derive(Debug, PartialEq, Eq)]
pub struct Auth {
    /// One that the gateway knows, or nothing.
    pub mechanism: Mechanisms,
    /// The initial response, if there is one; `=` is an empty one.
    pub initial: Option<Response>,
}

impl Auth {
    /// Reads the argument.
    ///
    /// # Errors
    /// 501: no mechanism's name, more than two words, or a response that is no base64.
    pub fn parse(argument: &str) -> Result<Self, CommandError> {
        let mut words = argument.split([' ', '\t']).filter(|word| !word.is_empty());
        let name = words.next().filter(|name| is_name(name)).ok_or(SYNTAX)?;
        let initial = match words.next() {
            None => None,
            Some("=") => Some(Response::empty()),
            Some(text) => Some(Response::parse(text.as_bytes())?),
        };
        if words.next().is_some() {
            return Err(SYNTAX);
        }
        Ok(Self { mechanism: Mechanisms::named(name.as_bytes()), initial })
    }

    /// AUTH as a line, CRLF included.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let name = self.mechanism.names().next().unwrap_or_default();
        let head = ["AUTH ", name].concat();
        match &self.initial {
            None => Zeroizing::new([head.as_bytes(), b"\r\n"].concat()),
            Some(response) if response.0.is_empty() => Zeroizing::new([head.as_bytes(), b" =\r\n"].concat()),
            Some(response) => response.encode_behind(&[head.as_bytes(), b" "].concat()),
        }
    }
}

/// 1 to 20 letters, digits, hyphens and underscores (RFC 4422 section 3.1).
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=20).contains(&name.len()) && name.bytes().all(plain)
}

/// A client's response, decoded. It is wiped when it is dropped, and never shown.
#[derive(PartialEq, Eq)]
pub struct Response(Zeroizing<Vec<u8>>);

impl Response {
    fn empty() -> Self {
        Self(Zeroizing::default())
    }

    /// Reads a line's text.
    ///
    /// # Errors
    /// [`NOT_BASE64`].
    pub fn parse(text: &[u8]) -> Result<Self, CommandError> {
        // As large as can be, so that it does not grow and leave a copy behind.
        let mut decoded = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
        BASE64.decode_vec(text, &mut decoded).map_err(|_| NOT_BASE64)?;
        Ok(Self(decoded))
    }

    /// As a line, CRLF included.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        self.encode_behind(b"")
    }

    fn encode_behind(&self, head: &[u8]) -> Zeroizing<Vec<u8>> {
        let length = base64::encoded_len(self.0.len(), true).unwrap_or_default();
        let mut line = Zeroizing::new(vec![0; head.len() + length + 2]);
        let (start, rest) = line.split_at_mut(head.len());
        start.copy_from_slice(head);
        let (text, end) = rest.split_at_mut(length);
        // It was made as long as it must be.
        let _ = BASE64.encode_slice(&*self.0, text);
        end.copy_from_slice(b"\r\n");
        line
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Response(…)")
    }
}

/// Whether a server's challenge is one: base64, perhaps empty.
pub fn is_challenge(text: &[u8]) -> bool {
    BASE64.decode(text).is_ok()
}

/// Whether the line is an AUTH, which may be longer.
pub fn is_auth(line: &[u8]) -> bool {
    matches!(line.split_first_chunk::<4>(), Some((verb, [b' ' | b'\t' | b'\r', ..] | [])) if verb.eq_ignore_ascii_case(b"AUTH"))
}

#[cfg(test)]
mod tests;
