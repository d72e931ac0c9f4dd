//! `cargo xtask bench --tls`: what a session inside TLS costs, beside proxies that end TLS as well.
//!
//! Each is spoken to as it can be: the gateway and nginx by STARTTLS, HAProxy and the forwarder, which know no SMTP, by
//! TLS from the first octet. The forwarder is tokio and rustls with nothing between them, and so the least that the
//! gateway can cost with the same library. The row `auth` is of users that log in, which only the gateway and nginx know; the
//! gateway hands AUTH to the mail server, nginx asks its HTTP service. `gateway-tls-backend` speaks TLS, by STARTTLS, to the
//! mail server as well, which nobody else can. A table says which certificate the server has, and whether sessions are
//! resumed; how many really were is counted.
//! Key exchange is by X25519 for all but the row `one-hybrid`, for not every library knows X25519MLKEM768, and who does must
//! not seem dear for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::command::target;

use super::load::Work;
use super::proxies::{Kind, Programs};
use super::stream::Security;

/// The certificates are for every name below this one: a client that comes again asks for its own, for the load keeps no more
/// than a few tickets a name.
pub(super) const NAME: &str = "gateway.example";

/// Sessions whose tickets the load keeps: more than it has at once.
const TICKETS: usize = 1024;

/// What is measured inside TLS.
pub(super) const WORKS: [(Work, Handshake); 6] = [
    (ONE, Handshake::Classical),
    (Work { name: "one-hybrid", ..ONE }, Handshake::Hybrid),
    (Work { name: "one-resumed", ..ONE }, Handshake::Resumed),
    (Work { name: "auth", login: true, ..ONE }, Handshake::Classical),
    (Work { name: "twenty", sessions: 200, messages: 20, ..ONE }, Handshake::Classical),
    (Work { name: "bulk", at_once: 8, sessions: 24, size: 10 << 20, ..ONE }, Handshake::Classical),
];

/// How the load begins TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// In full, with X25519, which every library knows: the same work for all.
    Classical,
    /// In full, with X25519MLKEM768 where the server knows that.
    Hybrid,
    /// Each client takes its last session up, with X25519.
    Resumed,
}

const ONE: Work =
    Work { name: "one", at_once: 64, sessions: 2000, messages: 1, size: 4 << 10, pipelined: false, login: false };

/// Which key a certificate has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    EcdsaP256,
    Rsa2048,
}

impl KeyKind {
    pub(super) const ALL: [Self; 2] = [Self::EcdsaP256, Self::Rsa2048];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Rsa2048 => "RSA 2048",
        }
    }
}

/// A self-signed certificate on disk, in the forms that servers want.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one file, for HAProxy.
    pub(super) combined: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub(super) fn make(kind: KeyKind, folder: &Path) -> Result<Self, String> {
        let error = |error: rcgen::Error| format!("a certificate for the bench: {error}");
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        };
        let key = key.map_err(error)?;
        let made =
            CertificateParams::new([format!("*.{NAME}")]).and_then(|params| params.self_signed(&key)).map_err(error)?;
        let folder = folder.join(kind.name().replace(' ', "-").to_lowercase());
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            let written = fs::write(&path, text);
            // Nobody takes a key that others may read.
            let written = written.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)));
            written.map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
        };
        Ok(Self {
            certificate: write("certificate.pem", made.pem())?,
            key: write("key.pem", key.serialize_pem())?,
            combined: write("combined.pem", made.pem() + &key.serialize_pem())?,
            der: made.der().clone(),
        })
    }

    /// How a proxy of this kind is spoken to.
    pub(super) fn security(&self, kind: Kind, handshake: Handshake) -> Result<Security, String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).map_err(|error| error.to_string())?;
        let mut provider = aws_lc_rs::default_provider();
        if handshake != Handshake::Hybrid {
            provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = match handshake {
            Handshake::Resumed => Resumption::in_memory_sessions(TICKETS),
            Handshake::Classical | Handshake::Hybrid => Resumption::disabled(),
        };
        let config = Arc::new(config);
        Ok(match kind {
            Kind::Haproxy | Kind::Forwarder => Security::Implicit(config),
            _ => Security::StartTls(config),
        })
    }

    /// For a server of our own.
    pub(super) fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
        use rustls::pki_types::PrivateKeyDer;
        use rustls::pki_types::pem::PemObject as _;
        let error = |error: rustls::pki_types::pem::Error| error.to_string();
        let chain = CertificateDer::pem_file_iter(certificate).map_err(error)?;
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(error)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(error)?;
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        config.map(Arc::new).map_err(|error| error.to_string())
    }
}

/// Which library each ends TLS with, in its own words, and how it takes sessions up.
pub(super) fn libraries(programs: &Programs) -> String {
    let said = |command: &mut Command, argument: &str, mark: &str| {
        let output = command.arg(argument).output().map(|output| [output.stdout, output.stderr].concat());
        let text = output.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let line = text.lines().find_map(|line| line.split_once(mark)).map(|(_, version)| version.trim().to_owned());
        line.unwrap_or_else(|| "unknown".to_owned())
    };
    let haproxy = said(&mut programs.haproxy(), "-vv", "Running on OpenSSL version :");
    let nginx = said(&mut programs.nginx(), "-V", "built with");
    let ours = "rustls with aws-lc-rs";
    format!(
        "gateway: {ours}; forwarder: {ours}; haproxy: {haproxy}; nginx: {nginx}\n\
         - sessions resumed: by tickets that only the client keeps; the forwarder keeps them itself"
    )
}

/// Where the certificates go.
pub(super) fn folder() -> PathBuf {
    target().join("bench/tls")
}
