//! Certificates for the scenarios' hosts, and a gateway that has one, before a mail server that it speaks TLS to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use smtp_gateway::tls::{SelfSigned, self_signed};
use tempfile::TempDir;

use super::gateway::Gateway;
use super::net::{BACK, FRONT, Family, Host, Trio};
use super::postfix::Postfix;
use super::stage::temporary_folder;
use super::{Backend, LOCAL_DOMAIN};

/// A line of master.cf without which a Postfix speaks no TLS.
pub const TLSMGR: &str = "tlsmgr unix - - n 1000? 1 tlsmgr\n";

/// A certificate and its key, for whoever may read them.
#[derive(Debug)]
pub struct Files {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, of mode 0600.
    pub key: PathBuf,
    _folder: TempDir,
}

impl Files {
    /// With an ECDSA key, signed by itself.
    pub fn new(name: &str) -> Self {
        let SelfSigned { certificate, key } = self_signed(&[name.to_owned()], 30).expect("a certificate");
        Self::of(&certificate, &key)
    }

    /// The same with an RSA key.
    pub fn rsa(name: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        let made = CertificateParams::new([name.to_owned()]).and_then(|params| params.self_signed(&key));
        Self::of(&made.expect("a certificate").pem(), &key.serialize_pem())
    }

    /// These.
    pub fn of(certificate: &str, key: &str) -> Self {
        let folder = temporary_folder();
        let files = Self {
            certificate: folder.path().join("certificate.pem"),
            key: folder.path().join("key.pem"),
            _folder: folder,
        };
        fs::write(&files.certificate, certificate).expect("a file");
        fs::write(&files.key, key).expect("a file");
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("its mode");
        files
    }

    /// As a member of `tls.certificates`.
    pub fn pair(&self) -> String {
        format!("{{ certificate = \"{}\", key = \"{}\" }}", self.certificate.display(), self.key.display())
    }
}

/// A gateway with these certificates, before a backend that it speaks to in this way.
pub fn gateway(trio: &Trio, own: &[&Files], backend: &impl Backend, how: &str) -> Gateway {
    let pairs: Vec<String> = own.iter().map(|files| files.pair()).collect();
    let config = format!(
        "[server]\nhostname = \"gateway.test\"\nworkers = 1\n[[listener]]\naddress = \"{}\"\n\
         [[backend]]\nname = \"backend\"\naddress = \"{}\"\n{how}\n[tls]\ncertificates = [{}]\n\
         [relay]\nlocal_domains = [\"{LOCAL_DOMAIN}\"]\n[log]\nlevel = \"debug\"\n[proof]\nenabled = false\n",
        Family::V4.smtp(FRONT),
        backend.address(),
        pairs.join(", "),
    );
    Gateway::by(trio, &config)
}

/// Keys of a backend that is verified by its certificate, which nobody has signed but itself.
pub fn verified(way: &str, identity: &str, files: &Files) -> String {
    format!(
        "identity = \"{identity}\"\ntls = \"{way}\"\ntls_verify = \"ca\"\ntls_ca = \"{}\"\ntls_name = \"backend.test\"",
        files.certificate.display()
    )
}

/// Lines for a Postfix that takes nothing in clear, and XCLIENT from the gateway.
pub fn encrypting(files: &Files) -> String {
    format!(
        "smtpd_tls_security_level = encrypt\nsmtpd_tls_loglevel = 1\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
         smtpd_authorized_xclient_hosts = {}\nvirtual_mailbox_maps = static:box/\n",
        files.certificate.display(),
        files.key.display(),
        BACK[0]
    )
}

/// Such a Postfix on port 25.
pub fn encrypting_postfix(host: &Host, files: &Files) -> Postfix {
    Postfix::set_up(host, &encrypting(files), TLSMGR, 25)
}
