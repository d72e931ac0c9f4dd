//! What ends a TLS connection before its time, told apart: an administrator mends each in another place.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use thiserror::Error as ThisError;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum TlsFault {
    /// Commands in clear where a handshake was due.
    #[error("it speaks in clear where TLS was due")]
    ClearText,
    /// Bytes that are neither.
    #[error("what it sends is no TLS")]
    NotTls,
    /// Too old, or configured to be.
    #[error("it knows no TLS version in common")]
    NoCommonVersion,
    /// No cipher suite, group or signature scheme.
    #[error("it knows no cipher, key exchange or signature in common")]
    NoCommonCipher,
    /// It asks for protocols, and SMTP is not among them.
    #[error("it asks for a protocol that is not SMTP (ALPN)")]
    OtherProtocol,
    /// It does not trust our certificate, or wants one of us.
    #[error("it does not accept the certificate: alert {0}")]
    CertificateRefused(String),
    /// Another alert of the peer's.
    #[error("it gave up with the alert {0}")]
    Alert(String),
    /// We do not trust its certificate.
    #[error("its certificate {0}")]
    Certificate(String),
    /// The connection ended in the handshake.
    #[error("the connection ended within the handshake")]
    GivenUp,
    /// The handshake took too long.
    #[error("it did not finish the TLS handshake in time")]
    TimedOut,
    /// The connection ended without the alert that announces it.
    #[error("the connection ended without close_notify")]
    Truncated,
    /// Anything else that breaks the protocol.
    #[error("it breaks the TLS protocol: {0}")]
    Protocol(String),
}

/// The same without particulars, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the faults")]
pub enum FaultCause {
    ClearText,
    NotTls,
    NoCommonVersion,
    NoCommonCipher,
    OtherProtocol,
    CertificateRefused,
    Alert,
    Certificate,
    GivenUp,
    TimedOut,
    Truncated,
    Protocol,
}

impl TlsFault {
    /// What it counts as.
    pub fn cause(&self) -> FaultCause {
        match self {
            Self::ClearText => FaultCause::ClearText,
            Self::NotTls => FaultCause::NotTls,
            Self::NoCommonVersion => FaultCause::NoCommonVersion,
            Self::NoCommonCipher => FaultCause::NoCommonCipher,
            Self::OtherProtocol => FaultCause::OtherProtocol,
            Self::CertificateRefused(_) => FaultCause::CertificateRefused,
            Self::Alert(_) => FaultCause::Alert,
            Self::Certificate(_) => FaultCause::Certificate,
            Self::GivenUp => FaultCause::GivenUp,
            Self::TimedOut => FaultCause::TimedOut,
            Self::Truncated => FaultCause::Truncated,
            Self::Protocol(_) => FaultCause::Protocol,
        }
    }
}

/// What the first byte of a connection shows, where a handshake is due: a record of type 22, or an SSL 2 hello.
pub(super) fn judge_first(byte: u8) -> Result<(), TlsFault> {
    match byte {
        22 => Ok(()),
        // SSL 2's length, and TLS alerts of a peer that has given up already.
        0x80 | 21 => Ok(()),
        b'\r' | b'\n' | b' '..=b'~' => Err(TlsFault::ClearText),
        _ => Err(TlsFault::NotTls),
    }
}

impl From<Error> for TlsFault {
    fn from(error: Error) -> Self {
        match error {
            Error::NoApplicationProtocol => Self::OtherProtocol,
            Error::InvalidCertificate(error) => Self::Certificate(certificate(&error)),
            Error::AlertReceived(alert) => alert_received(alert),
            Error::PeerIncompatible(why) => incompatible(&why),
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                Self::NotTls
            }
            other => Self::Protocol(other.to_string()),
        }
    }
}

fn incompatible(why: &PeerIncompatible) -> TlsFault {
    match why {
        // rustls looks for signature algorithms before it looks at the version, and whoever knows TLS 1.2 names some.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => TlsFault::NoCommonVersion,
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::EcPointsExtensionRequired
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::UncompressedEcPointsRequired => TlsFault::NoCommonCipher,
        other => TlsFault::Protocol(format!("{other:?}")),
    }
}

fn alert_received(alert: AlertDescription) -> TlsFault {
    let name = alert_name(alert);
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied => TlsFault::CertificateRefused(name),
        AlertDescription::ProtocolVersion => TlsFault::NoCommonVersion,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => TlsFault::NoCommonCipher,
        AlertDescription::NoApplicationProtocol => TlsFault::OtherProtocol,
        _ => TlsFault::Alert(name),
    }
}

/// As RFC 8446 writes it: `UnknownCA` is unknown_ca.
fn alert_name(alert: AlertDescription) -> String {
    let camel = format!("{alert:?}");
    let mut name = String::new();
    let mut after_lower = false;
    for c in camel.chars() {
        if c.is_ascii_uppercase() && after_lower {
            name.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet".to_owned(),
        // Another authority of the same name has signed it.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "was signed by nobody that is trusted here".to_owned()
        }
        CertificateError::NotValidForName => "is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            // rustls writes each as the type of Rust's that it is.
            let plain = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
            let presented: Vec<_> = presented.iter().take(8).map(plain).collect();
            let presented = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("is for {presented}, not for {}", expected.to_str())
        }
        CertificateError::Revoked => "was revoked".to_owned(),
        CertificateError::ApplicationVerificationFailure => "has none of the pinned keys".to_owned(),
        other => format!("cannot be verified: {other}"),
    }
}
