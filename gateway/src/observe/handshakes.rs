//! What is counted of TLS handshakes with clients: what was agreed upon, and why one did not come about.

use super::declare::{Label, label};

label! {
    /// The version that was agreed upon.
    AgreedVersion {
        /// RFC 8446.
        Tls13 = "TLS 1.3",
        /// RFC 5246.
        Tls12 = "TLS 1.2",
    }
}

label! {
    /// The cipher suite that was agreed upon, by its registered name.
    AgreedCipher {
        /// TLS 1.3.
        Aes256 = "TLS_AES_256_GCM_SHA384",
        /// TLS 1.3.
        Aes128 = "TLS_AES_128_GCM_SHA256",
        /// TLS 1.3.
        ChaCha20 = "TLS_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2.
        EcdsaAes256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        /// TLS 1.2.
        EcdsaAes128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        /// TLS 1.2.
        EcdsaChaCha20 = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2.
        RsaAes256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        /// TLS 1.2.
        RsaAes128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        /// TLS 1.2.
        RsaChaCha20 = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        /// Another.
        Other = "other",
    }
}

label! {
    /// The key exchange that was agreed upon.
    AgreedGroup {
        /// Post-quantum and classical together.
        X25519MlKem768 = "X25519MLKEM768",
        /// RFC 7748.
        X25519 = "X25519",
        /// NIST P-256.
        Secp256r1 = "secp256r1",
        /// NIST P-384.
        Secp384r1 = "secp384r1",
        /// None: an earlier session was taken up.
        None = "none",
        /// Another.
        Other = "other",
    }
}

label! {
    /// Why a handshake with a client did not come about. None of them speaks against its source.
    HandshakeFault {
        /// A ClientHello where a command was due: TLS begins there only behind STARTTLS.
        HelloInClear = "hello-in-clear",
        /// A command where a ClientHello was due.
        ClearText = "clear-text",
        /// Bytes that are neither.
        NotTls = "not-tls",
        /// The client is too old, or set up to be.
        NoCommonVersion = "no-common-version",
        /// No cipher suite, group or signature in common.
        NoCommonCipher = "no-common-cipher",
        /// It wants another protocol than SMTP (ALPN).
        OtherProtocol = "other-protocol",
        /// It does not accept our certificate.
        CertificateRefused = "certificate-refused",
        /// It gave up with another alert.
        Alert = "alert",
        /// It went away.
        GivenUp = "given-up",
        /// It took too long.
        TimedOut = "timed-out",
        /// It has begun as many lately as one may.
        TooMany = "too-many",
        /// It breaks the protocol in another way.
        Protocol = "protocol",
    }
}

/// The label that is written so, or else `other`.
pub fn by_name<L: Label>(name: &str, other: L) -> L {
    L::ALL.iter().copied().find(|label| label.as_str() == name).unwrap_or(other)
}
