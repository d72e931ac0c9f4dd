//! Who a client says that it is, as each mechanism has it in the first response.
//!
//! For the log, for telling a stale password from a spray, and for XCLIENT's LOGIN. Only a backend's 235 makes it true.

use std::fmt;

use super::{Mechanisms, Response};

/// Longest name that is one, in bytes.
const NAME_MAX: usize = 255;

/// A name that a client logs in by.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    name: Box<str>,
    /// Whether the backend knows the client by just this name once it says 235.
    exact: bool,
}

impl Login {
    /// From the first response of an exchange; `None` if it holds no name.
    pub fn from_response(mechanism: Mechanisms, Response(response): &Response) -> Option<Self> {
        let (name, exact) = match mechanism {
            Mechanisms::PLAIN => plain(response)?,
            Mechanisms::LOGIN => (text(response)?.to_owned(), true),
            Mechanisms::CRAM_MD5 => (text(response)?.rsplit_once(' ')?.0.to_owned(), true),
            Mechanisms::DIGEST_MD5 => digest(text(response)?)?,
            Mechanisms::OAUTHBEARER => {
                let header = text(response)?.split('\x01').next()?;
                (sasl_name(header.split(',').find_map(|field| field.strip_prefix("a="))?)?, false)
            }
            Mechanisms::XOAUTH2 => {
                let user = text(response)?.split('\x01').find_map(|field| field.strip_prefix("user="))?;
                (user.to_owned(), false)
            }
            _ => scram(text(response)?)?,
        };
        let good = !name.is_empty() && name.len() <= NAME_MAX && !name.chars().any(char::is_control);
        good.then(|| Self { name: name.into(), exact })
    }

    /// The whole name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its domain; empty if it has none.
    pub fn domain(&self) -> &str {
        self.name.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// Whether the backend knows the client by just this name once it says 235: there is no second one in the exchange, and
    /// it is not a token that decides.
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login(…@{})", self.domain())
    }
}

fn text(response: &[u8]) -> Option<&str> {
    std::str::from_utf8(response).ok()
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2). A password in another charset is none of our business.
fn plain(response: &[u8]) -> Option<(String, bool)> {
    let mut parts = response.split(|&byte| byte == 0);
    let (authzid, authcid) = (parts.next()?, text(parts.next()?)?);
    Some((authcid.to_owned(), authzid.is_empty() || authzid == authcid.as_bytes()))
}

/// `gs2-header n=saslname,r=…` (RFC 5802 section 7).
fn scram(message: &str) -> Option<(String, bool)> {
    let mut fields = message.split(',');
    let (_binding, authzid) = (fields.next()?, fields.next()?);
    let name = sasl_name(fields.find_map(|field| field.strip_prefix("n="))?)?;
    Some((name, authzid.is_empty()))
}

/// Comma and equals sign are `=2C` and `=3D` (RFC 5802 section 5.1); no other `=` may stand in one.
fn sasl_name(encoded: &str) -> Option<String> {
    let mut parts = encoded.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    Some(name)
}

/// `username="…"` among directives (RFC 2831 section 2.1.2). A realm belongs to the name that the backend makes of it.
fn digest(message: &str) -> Option<(String, bool)> {
    let quoted = message.split_once("username=\"")?.1;
    let mut name = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((name, false)),
            '\\' => name.push(chars.next()?),
            c => name.push(c),
        }
    }
}
