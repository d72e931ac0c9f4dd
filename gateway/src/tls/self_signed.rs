//! A certificate for a first start: signed by its own key, so that mail is encrypted, though nobody can tell by whom.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use thiserror::Error;

/// A certificate and its key, in PEM.
pub struct SelfSigned {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// It could not be made.
#[derive(Debug, Error)]
#[error("no certificate can be made for this name: {0}")]
pub struct NotMade(#[from] rcgen::Error);

/// Makes a certificate for these host names, the first its subject, good for `days` from now, with an ECDSA P-256 key.
///
/// # Errors
/// A name is no host name, or the system gives no random bytes.
pub fn self_signed(names: &[String], days: u32) -> Result<SelfSigned, NotMade> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    if let Some(name) = names.first() {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    let now = std::time::SystemTime::now();
    // A peer's clock may be an hour behind.
    params.not_before = (now - std::time::Duration::from_secs(3600)).into();
    params.not_after = (now + std::time::Duration::from_secs(u64::from(days) * 24 * 3600)).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key)?;
    Ok(SelfSigned { certificate: certificate.pem(), key: key.serialize_pem() })
}
