//! `[tls]`, and what a backend's `tls_…` keys say. Files are named here and read elsewhere: this room knows no certificate.

use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml::de::DeValue;

use super::addresses::network;
use super::declare::{Each, table, words};
use super::diagnostics::{Fault, quoted};
use super::read::{Complaint, Located, Read, Section, kind_of};
use super::values::{text, word};

table! {
    /// `[tls]`: what clients are shown.
    pub struct Tls: Default {
        /// Older versions are refused.
        minimum_version: MinimumVersion = MinimumVersion::Tls12, word;
        /// Clients in these networks are not offered STARTTLS.
        not_offered_to: Vec<IpNet> = Vec::new(), Each(network);
    } and {
        /// The first is the default, others are for their names.
        certificates: Vec<CertificateFiles> = Vec::new();
    }
}

words! {
    /// `tls.minimum_version`
    pub enum MinimumVersion {
        /// TLS 1.2.
        Tls12 = "1.2",
        /// TLS 1.3.
        Tls13 = "1.3",
    }
}

words! {
    /// `listener.tls`
    pub enum ListenerTls {
        /// All in clear.
        Off = "off",
        /// Offered to clients, who may use it.
        StartTls = "starttls",
        /// From the first byte.
        Implicit = "implicit",
    }
}

words! {
    /// `backend.tls_verify`: whose certificate it may be.
    pub enum TlsVerify {
        /// One of an authority that this system trusts.
        Roots = "roots",
        /// One of an authority in `tls_ca`.
        Ca = "ca",
        /// One with a key in `tls_pins`.
        Pin = "pin",
        /// Any certificate, whoever's: the connection is encrypted, and the backend not known to be the backend.
        None = "none",
    }
}

/// An element of `tls.certificates`, or `backend.tls_certificate`.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateFiles {
    /// The server's certificate and those that signed it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Where it stands.
    pub place: WhereSaid,
}

/// Where a key's value stands, if it is there, for what turns out to be wrong with what it names. It is no part of what is
/// configured, and so of no weight where configurations are compared.
#[derive(Clone, Default)]
pub struct WhereSaid(Option<Fault>);

impl WhereSaid {
    /// What was found there, and what to do.
    pub fn said(&self, message: String, help: &str) -> String {
        match &self.0 {
            Some(place) => place.clone().found(message, help.to_owned()).to_string(),
            None => format!("{message}; {help}"),
        }
    }
}

impl fmt::Debug for WhereSaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WhereSaid")
    }
}

impl PartialEq for WhereSaid {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// `directory` is where the configuration lies.
pub(super) fn tls(mut section: Section<'_, '_, '_>, directory: &Path) -> Tls {
    let mut tls = Tls::read(&mut section);
    section.list("certificates", pair);
    for files in section.elements("certificates", pair) {
        tls.certificates.push(placed(&mut section, directory, files));
    }
    section.finish();
    tls
}

/// `backend.tls_certificate`
pub(super) fn own_certificate(section: &mut Section<'_, '_, '_>, directory: &Path) -> Option<CertificateFiles> {
    let files = section.optional("tls_certificate", pair)?;
    Some(placed(section, directory, files))
}

/// Where this key's value stands, if it is there.
pub(super) fn place_of(section: &mut Section<'_, '_, '_>, key: &'static str) -> WhereSaid {
    let located = section.locate(key, ());
    WhereSaid(located.map(|located| section.report().place(&located.span)))
}

fn placed(section: &mut Section<'_, '_, '_>, directory: &Path, files: Located<(PathBuf, PathBuf)>) -> CertificateFiles {
    let Located { value: (certificate, key), span } = files;
    let place = WhereSaid(Some(section.report().place(&span)));
    CertificateFiles { certificate: directory.join(certificate), key: directory.join(key), place }
}

fn pair(value: &DeValue<'_>) -> Read<(PathBuf, PathBuf)> {
    let help = "write `{ certificate = \"mx.pem\", key = \"mx.key\" }`";
    let Some(table) = value.as_table() else {
        return Err(Complaint::new(format!("must be two files in braces, not {}", kind_of(value)), help));
    };
    let unknown = table.iter().map(|(key, _)| key.get_ref().as_ref()).find(|key| !["certificate", "key"].contains(key));
    if let Some(key) = unknown {
        return Err(Complaint::new(format!("has no key {}", quoted(key)), help));
    }
    let file = |key: &str| {
        let value = table.get(key).ok_or_else(|| Complaint::new(format!("has no `{key}`"), help))?;
        let path = text(value.get_ref(), "mx.pem")?;
        if path.is_empty() || path.contains('\0') {
            return Err(Complaint::new(format!("names no file by `{key}`"), help));
        }
        Ok(PathBuf::from(path))
    };
    Ok((file("certificate")?, file("key")?))
}

/// Where a certificate authority's file is.
pub(super) fn path(value: &DeValue<'_>) -> Read<PathBuf> {
    match text(value, "ca.pem")? {
        "" => Err(Complaint::new("names no file", "write the path of a PEM file, such as `\"ca.pem\"`")),
        path => Ok(path.into()),
    }
}

/// The SHA-256 of a public key in hexadecimal digits.
pub(super) fn pin(value: &DeValue<'_>) -> Read<[u8; 32]> {
    let text = text(value, "3f…")?;
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    let pin = bytes.filter(|_| digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit));
    pin.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        Complaint::new(
            format!("is {}, which is no SHA-256 of a public key", quoted(text)),
            "write its 64 hexadecimal digits, as in a DANE `3 1 1` record",
        )
    })
}
