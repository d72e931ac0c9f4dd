//! What an administrator wants to know of a certificate.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

const SECONDS_A_DAY: i64 = 24 * 3600;

/// A server's own certificate, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The DNS names it is for, in lower case; `*.example.com` stands for one label.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Whether that is itself.
    pub self_signed: bool,
    /// Good from, in seconds since 1970.
    pub not_before: i64,
    /// Good until, in seconds since 1970.
    pub not_after: i64,
    /// Its key.
    pub key: KeyType,
    /// SHA-256 of its public key: what a DANE `3 1 1` record and a pin hold.
    pub key_digest: [u8; 32],
}

/// The kind of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// An elliptic curve of so many bits.
    Ecdsa(usize),
    /// A modulus of so many bits.
    Rsa(usize),
    /// Ed25519, or another that few clients know.
    Other,
}

impl KeyType {
    /// Whether both are of one family, so that a client can do with either what it can do with the other.
    pub fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ecdsa(bits) => write!(f, "ECDSA P-{bits}"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Other => f.write_str("Ed25519"),
        }
    }
}

/// A certificate of a chain: who it is, and who signed it; as DER, to be compared.
pub(super) struct Link<'a> {
    pub(super) subject: &'a [u8],
    pub(super) issuer: &'a [u8],
}

pub(super) fn link(der: &[u8]) -> Option<Link<'_>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(Link { subject: certificate.subject.as_raw(), issuer: certificate.issuer.as_raw() })
}

/// The digest of a certificate's public key; `None` if it is no certificate.
pub(super) fn key_digest(der: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref().try_into().ok()
}

impl Leaf {
    /// Reads a certificate in DER; `None` if it is none.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            names: names(&certificate),
            issuer: issuer(&certificate),
            self_signed: certificate.subject() == certificate.issuer(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            key: match certificate.public_key().parsed() {
                Ok(PublicKey::EC(point)) => KeyType::Ecdsa(point.key_size()),
                Ok(PublicKey::RSA(key)) => KeyType::Rsa(key.key_size()),
                _ => KeyType::Other,
            },
            key_digest: key_digest(der)?,
        })
    }

    /// Whole days until its end; negative once it is over.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - unix_seconds(now)).div_euclid(SECONDS_A_DAY)
    }

    /// Its time is over.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) > self.not_after
    }

    /// Its time has not come.
    pub fn is_early(&self, now: SystemTime) -> bool {
        unix_seconds(now) < self.not_before
    }

    /// The digest of its public key in hexadecimal digits.
    pub fn key_digest_hex(&self) -> String {
        hex(&self.key_digest)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unix_seconds(time: SystemTime) -> i64 {
    // A clock that shows a time before 1970 was never set.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The alternative names; where there are none, the common name, as old private CAs write it.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let named = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<_> = named
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if alternatives.is_none() {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    names
}

fn issuer(certificate: &X509Certificate<'_>) -> String {
    let issuer = certificate.issuer();
    let common = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    let organization = issuer.iter_organization().next().and_then(|name| name.as_str().ok());
    match (organization, common) {
        (Some(organization), Some(common)) => format!("{organization}, {common}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => issuer.to_string(),
    }
}
