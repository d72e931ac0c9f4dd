//! Why a backend's session does not open, and whose fault that is.

use thiserror::Error;

/// Why it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The backend refused, by this reply: the client's to hear, for it is about him or about the server's state.
    Refused(Box<[u8]>),
    /// It cannot be told who the client is.
    Identity(IdentityFault),
    /// It cannot be spoken to in private.
    Tls(TlsFailure),
    /// A reply that is none that may come there.
    Unexpected,
    /// It speaks no SMTP.
    NotSmtp,
}

/// What is wrong with a backend's way to learn who the client is. An administrator must mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdentityFault {
    /// 5xx to the gateway's own EHLO.
    #[error("the backend refused EHLO, and so cannot offer XCLIENT")]
    EhloRefused,
    /// XCLIENT or its ADDR is missing.
    #[error("the backend does not offer XCLIENT ADDR to the gateway")]
    XclientNotOffered,
    /// Anything but 220.
    #[error("the backend refused XCLIENT")]
    XclientRefused,
    /// A syntax error where none can be the client's.
    #[error("the backend took the PROXY header for a command")]
    ProxyRefused,
    /// One reply too many.
    #[error("the backend answered the PROXY header as if it were a command")]
    ProxyAnswered,
    /// The same without a header.
    #[error("the backend's replies are out of step")]
    OutOfStep,
}

/// What is wrong with a backend's TLS, as far as it shows in SMTP. An administrator must mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TlsFailure {
    /// Under [`BackendTls::Required`](crate::config::BackendTls::Required).
    #[error("the backend does not offer STARTTLS, which `tls = \"required\"` asks for")]
    NotOffered,
    /// Anything but 220.
    #[error("the backend refused STARTTLS")]
    Refused,
    /// Said in clear, to be read as if it came through TLS.
    #[error("the backend sent bytes behind its 220 to STARTTLS, before TLS began")]
    BytesBehind220,
}

impl From<IdentityFault> for Failure {
    fn from(fault: IdentityFault) -> Self {
        Self::Identity(fault)
    }
}
