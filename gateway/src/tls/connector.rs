//! The gateway as a TLS client of a backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error as ThisError;

use super::acceptor::TlsVersion;
use super::channel::{Channel, Judge};
use super::ciphers::provider;
use super::fault::TlsFault;
use super::pair::{Pair, PairFault, PairFiles, Problem, chain, read};
use super::verify::{ByKey, Pin};
use super::wire::Wire;

/// `backend.tls_verify` and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    /// Against the certificate authorities that this system trusts.
    Roots,
    /// Against those in this PEM file.
    Ca(PathBuf),
    /// It has one of these keys.
    Pins(Vec<Pin>),
    /// Not at all: whoever sits between could be the server.
    Nothing,
}

/// Why a backend's TLS cannot be set up: a whole sentence.
#[derive(Debug, ThisError)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum ConnectorFault {
    #[error(transparent)]
    File(#[from] PairFault),
    #[error("this system has no list of trusted certificate authorities")]
    NoRoots,
    #[error("{} holds no certificate of an authority", .0.display())]
    NoAuthority(PathBuf),
    #[error("`{0}` is no host name that a certificate could be for")]
    Name(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl ConnectorFault {
    /// The file that is no good, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(fault) => Some(&fault.path),
            Self::NoAuthority(path) => Some(path),
            Self::NoRoots | Self::Name(_) | Self::Setup(_) => None,
        }
    }

    /// Whether it is only that this user may not read it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::File(PairFault { problem: Problem::Forbidden, .. }))
    }

    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::File(fault) => fault.problem.help(),
            Self::NoRoots => "install ca-certificates, or write `tls_verify = \"ca\"` or `\"pin\"`",
            Self::NoAuthority(_) => "name a PEM file with the certificate of the authority that signed the server's",
            Self::Name(_) => "write the name in its certificate, `tls_name = \"mail.example.com\"`",
            Self::Setup(_) => "see that the gateway's certificate is for an ECDSA or RSA key",
        }
    }
}

/// Begins a backend's TLS.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
    /// Whether a handshake fails where the certificate is not that of whom we want.
    demands: bool,
    /// Whether the certificate is looked at at all.
    looks: bool,
}

impl Connector {
    /// `name` is the one to ask for and to check. `demands`: without a good certificate there is no handshake; otherwise it is
    /// only noted. `own` is the gateway's certificate, for servers that want to see one.
    ///
    /// # Errors
    /// A file that cannot be read, a name that is none.
    pub fn new(name: &str, verify: &Verify, demands: bool, own: Option<&PairFiles>) -> Result<Self, ConnectorFault> {
        let setup = |error: &dyn std::fmt::Display| ConnectorFault::Setup(error.to_string());
        let name = ServerName::try_from(name.to_owned()).map_err(|_| ConnectorFault::Name(name.to_owned()))?;
        let provider = Arc::new(provider());
        let by_roots = |roots: RootCertStore| {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            builder.build().map_err(|error| setup(&error))
        };
        let verifier: Arc<dyn ServerCertVerifier> = match verify {
            Verify::Roots => by_roots(system_roots()?)?,
            Verify::Ca(path) => by_roots(roots_of(path)?)?,
            Verify::Pins(pins) => ByKey::pinned(pins.clone()),
            Verify::Nothing => ByKey::any(),
        };
        let looks = *verify != Verify::Nothing;
        let strict = if demands { verifier.clone() } else { ByKey::any() };
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(TlsVersion::Tls12.and_later()).map_err(|error| setup(&error))?;
        let builder = builder.dangerous().with_custom_certificate_verifier(strict);
        let config = match own {
            Some(files) => {
                let pair = Pair::read(files)?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair.certified)))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), name, verifier, demands, looks })
    }

    /// TLS towards the server; the bytes with which it begins are in `wire`.
    ///
    /// # Errors
    /// The configuration is not usable, which [`Connector::new`] has ruled out.
    pub fn connect(&self, wire: &mut Wire) -> Result<Channel, TlsFault> {
        let connection = UnbufferedClientConnection::new(self.config.clone(), self.name.clone())?;
        let judge = if self.demands || !self.looks {
            Judge::Handshake { demands: self.looks }
        } else {
            Judge::Later { verifier: self.verifier.clone(), name: Box::new(self.name.clone()) }
        };
        let mut channel = Channel::client(connection, judge);
        channel.begin(wire)?;
        Ok(channel)
    }
}

fn system_roots() -> Result<RootCertStore, ConnectorFault> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of a system's list is not trusted, and does not matter while something can.
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(ConnectorFault::NoRoots) } else { Ok(roots) }
}

fn roots_of(path: &Path) -> Result<RootCertStore, ConnectorFault> {
    let bytes = read(path, false)?;
    let certificates = chain(&bytes).map_err(|problem| PairFault { path: path.to_owned(), problem })?;
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(certificates);
    if good == 0 { Err(ConnectorFault::NoAuthority(path.to_owned())) } else { Ok(roots) }
}
