//! The room as a whole: both ends of a connection in one process, and files as administrators leave them.

mod certificates;
mod channels;
mod files;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};

use super::*;

/// A certificate authority of the tests' own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Test Authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Issues for these names, into `name.pem` and `name.key` of a directory.
    fn issue(&self, directory: &Path, name: &str, algorithm: &'static SignatureAlgorithm, names: &[&str]) -> PairFiles {
        self.issue_for(directory, name, algorithm, names, |_| ())
    }

    fn issue_for(
        &self,
        directory: &Path,
        name: &str,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> PairFiles {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write_pair(directory, name, &(certificate.pem() + &self.pem), &key.serialize_pem())
    }
}

fn write_pair(directory: &Path, name: &str, certificate: &str, key: &str) -> PairFiles {
    let files =
        PairFiles { certificate: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
    fs::write(&files.certificate, certificate).unwrap();
    fs::write(&files.key, key).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    files
}

fn acceptor(pairs: &[PairFiles], minimum: TlsVersion) -> Acceptor {
    Acceptor::new(Arc::new(certificates(pairs)), Arc::new(TicketKeys::new().unwrap()), minimum).unwrap()
}

fn certificates(pairs: &[PairFiles]) -> Certificates {
    let certificates = Certificates::new(pairs.to_vec());
    certificates.reread();
    assert!(certificates.states().iter().all(|state| state.leaf.is_some()));
    certificates
}
