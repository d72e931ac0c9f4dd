//! Certificates as they are shown, and a renewed one on its way from root, who may read its files, to the gateway, which may not.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;

use mail_parser::DateTime;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::observe::show::printable;

/// One listed certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The certificate's file.
    pub certificate: String,
    /// The key's file.
    pub key: String,
    /// What is in use; `None` while nothing of these files could be had.
    pub in_use: Option<CertificateFacts>,
    /// Why what now lies in the files is not in use, and what to do.
    pub problem: Option<String>,
    /// Listeners that show it to clients who ask for one of its names.
    pub listeners: Vec<SocketAddr>,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The host names it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// Whether that is itself.
    pub self_signed: bool,
    /// Such as `ECDSA P-256`.
    pub key_type: String,
    /// Good from, in seconds since 1970, UTC.
    pub not_before: i64,
    /// Good until, in seconds since 1970, UTC.
    pub not_after: i64,
    /// Whole days until then; negative once it is over.
    pub days_left: i64,
    /// SHA-256 of its public key in hexadecimal digits: what a DANE `3 1 1` record and `tls_pins` hold.
    pub key_sha256: String,
}

/// What `certificates` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateList {
    /// In the configuration's order; the first is the default.
    pub certificates: Vec<CertificateStatus>,
}

/// What lies in a pair's files.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// The certificate's file, as the configuration names it.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// What is in the one.
    pub certificate_text: Secret,
    /// What is in the other.
    pub key_text: Secret,
}

/// Bytes that are shown to nobody. On the wire each is the character with its number.
#[derive(PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.iter().map(|byte| char::from(*byte)).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<_, _> = text.chars().map(u8::try_from).collect();
        bytes.map(Self).map_err(|_| serde::de::Error::custom("a character that is no byte"))
    }
}

/// What came of a pair that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum RenewAnswer {
    /// It is in use.
    Exchanged,
    /// It was in use already.
    Unchanged,
    /// It is no good; what was in use stays so.
    Kept {
        /// Why, and what to do.
        why: String,
    },
}

/// A page for a terminal or a file.
pub fn render_certificates(list: &CertificateList) -> String {
    let mut page = String::new();
    if list.certificates.is_empty() {
        page.push_str(
            "there is no certificate; `smtp-gateway cert` makes one to begin with, for `[tls] certificates`\n",
        );
    }
    for CertificateStatus { certificate, in_use, problem, listeners, .. } in &list.certificates {
        // A String takes everything.
        let _ = writeln!(page, "{}", printable(certificate));
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(page, "  {name:<11}{}", printable(value));
        };
        if let Some(facts) = in_use {
            line("names", &facts.names.join(", "));
            line("issuer", if facts.self_signed { "itself" } else { &facts.issuer });
            line("key", &facts.key_type);
            line("expires", &format!("{}, {}", date(facts.not_after), days(facts.days_left)));
            line("DANE 3 1 1", &facts.key_sha256);
        }
        let addresses: Vec<_> = listeners.iter().map(ToString::to_string).collect();
        line("listeners", &if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") });
        if let Some(problem) = problem {
            line("!", problem);
        }
    }
    page
}

/// How long it is still good.
pub(super) fn days(left: i64) -> String {
    let (count, which) = if left < 0 { (-left, "ago") } else { (left, "left") };
    format!("{count} {} {which}", if count == 1 { "day" } else { "days" })
}

/// In UTC, as RFC 3339 writes it.
fn date(seconds: i64) -> String {
    DateTime::from_timestamp(seconds).to_rfc3339()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn certificate(days_left: i64) -> CertificateStatus {
        CertificateStatus {
            certificate: "/etc/mx.pem".into(),
            key: "/etc/mx.key".into(),
            in_use: Some(CertificateFacts {
                names: vec!["mx.example.com".into(), "mx2.example.com".into()],
                issuer: "Let's Encrypt, R11".into(),
                self_signed: false,
                key_type: "ECDSA P-256".into(),
                not_before: 0,
                not_after: 1_700_000_000,
                days_left,
                key_sha256: "0f".repeat(32),
            }),
            problem: None,
            listeners: vec!["192.0.2.1:25".parse().unwrap(), "192.0.2.1:465".parse().unwrap()],
        }
    }

    #[test]
    fn the_page() {
        let problem = Some("mx.key is \u{1b}[2J bad; mend it".to_owned());
        let list = CertificateList { certificates: vec![CertificateStatus { problem, ..certificate(30) }] };
        let expected = "\
/etc/mx.pem
  names      mx.example.com, mx2.example.com
  issuer     Let's Encrypt, R11
  key        ECDSA P-256
  expires    2023-11-14T22:13:20Z, 30 days left
  DANE 3 1 1 0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
  listeners  192.0.2.1:25, 192.0.2.1:465
  !          mx.key is \\u{1b}[2J bad; mend it
";
        assert_eq!(render_certificates(&list), expected);
        assert!(render_certificates(&CertificateList { certificates: Vec::new() }).contains("smtp-gateway cert"));
    }

    #[test]
    fn every_byte_goes_over_and_none_is_shown() {
        let secret = Secret((0..=255).collect());
        let renewal = Renewal {
            certificate: "mx.pem".into(),
            key: "mx.key".into(),
            certificate_text: Secret(Vec::new()),
            key_text: secret,
        };
        let json = serde_json::to_string(&renewal).unwrap();
        assert_eq!(serde_json::from_str::<Renewal>(&json).unwrap(), renewal);
        assert!(format!("{renewal:?}").contains("256 bytes"), "{renewal:?}");
        assert!(serde_json::from_str::<Secret>("\"€\"").is_err());
    }
}
