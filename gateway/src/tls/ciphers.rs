//! Which ciphers are spoken, and which of them first.
//!
//! AES-128 before AES-256: both are out of anybody's reach, and no stronger than the certificate's key and the key exchange,
//! which have 128 bits of security with P-256, X25519 and RSA 2048 to 3072. A handshake with AES-256 derives its keys by SHA-384,
//! for which processors have no instructions. Clients that know AES-256 alone get it.

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};

const IN_ORDER: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// What is spoken, in our order.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider { cipher_suites: IN_ORDER.to_vec(), ..default_provider() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_of_the_library_s_is_left_out() {
        let ours = provider().cipher_suites;
        let theirs = default_provider().cipher_suites;
        assert_eq!(ours.len(), theirs.len());
        assert!(theirs.iter().all(|suite| ours.contains(suite)));
    }
}
