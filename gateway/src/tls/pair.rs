//! A certificate with its key, from two PEM files, judged before it is used.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use thiserror::Error as ThisError;

use super::leaf::{Leaf, link};

/// Bytes of a PEM file.
const FILE_MAX: u64 = 1 << 20;
/// Certificates of a chain.
const CHAIN_MAX: usize = 16;
/// Everybody may read, or others than the owner may write.
const LOOSE: u32 = 0o026;

/// Where a pair lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PairFiles {
    /// The server's certificate, then those that signed it.
    pub certificate: PathBuf,
    /// Its private key. May be the same file.
    pub key: PathBuf,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where it came from.
    pub files: PairFiles,
    /// What it is.
    pub leaf: Leaf,
    pub(super) certified: Arc<CertifiedKey>,
}

/// Why a pair cannot be used: a whole sentence.
#[derive(Debug, ThisError)]
#[error("{} {problem}", .path.display())]
pub struct PairFault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a file; the end of a sentence that begins with its name.
#[derive(Debug, ThisError)]
#[expect(missing_docs, reason = "each says itself what it is")]
pub enum Problem {
    #[error("does not exist")]
    Missing,
    #[error("may not be read by this user")]
    Forbidden,
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is no regular file")]
    NoFile,
    #[error("is larger than 1 MiB")]
    TooLarge,
    #[error("is a private key with mode {0:04o}: others may read or change it")]
    LooseMode(u32),
    #[error("is PKCS#12, not PEM")]
    Pkcs12,
    #[error("is DER, not PEM")]
    Der,
    #[error("holds no certificate")]
    NoCertificate,
    #[error("holds no private key")]
    NoKey,
    #[error("holds an encrypted private key")]
    EncryptedKey,
    #[error("holds a certificate that cannot be read")]
    BadCertificate,
    #[error("holds a private key that cannot be used: {0}")]
    BadKey(String),
    #[error("holds more than {CHAIN_MAX} certificates")]
    LongChain,
    #[error("does not belong to the certificate {}", .0.display())]
    WrongKey(PathBuf),
    #[error("holds its certificates in the wrong order")]
    WrongOrder,
    #[error("holds a certificate that names no host")]
    NoName,
    #[error("holds a certificate that expired {0} days ago")]
    Expired(i64),
    #[error("holds a certificate that is not valid yet")]
    Early,
}

impl Problem {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Missing | Self::NoFile => "name an existing PEM file",
            Self::Forbidden => {
                "let the gateway's user read it, or have root hand it over: `smtp-gateway certificates renew`"
            }
            Self::Unreadable(_) => "name a file that can be read",
            Self::TooLarge | Self::LongChain => "leave only the server's certificate and those that signed it in it",
            Self::LooseMode(_) => "run `chmod 0600` on it, or `chmod 0640` if a group shall read it",
            Self::Pkcs12 => "convert it: `openssl pkcs12 -in FILE -nodes -out FILE.pem`",
            Self::Der => "convert it: `openssl x509 -inform DER -in FILE -out FILE.pem`, a key with `openssl pkey`",
            Self::NoCertificate | Self::BadCertificate => {
                "name a PEM file with `-----BEGIN CERTIFICATE-----`, such as certbot's fullchain.pem"
            }
            Self::NoKey | Self::BadKey(_) => {
                "name a PEM file with `-----BEGIN PRIVATE KEY-----`, such as certbot's privkey.pem; ECDSA P-256, P-384 or \
                 RSA of 2048 bits and more"
            }
            Self::EncryptedKey => "take the password off: `openssl pkey -in FILE -out FILE.plain`",
            Self::WrongKey(_) => "name the key that this certificate was issued for",
            Self::WrongOrder => "put the server's own certificate first, then the one that signed it, and so on",
            Self::NoName => "have it issued for the host name that clients connect to",
            Self::Expired(_) => "renew it",
            Self::Early => "set this machine's clock, or wait",
        }
    }
}

/// What lies in a pair's files, for a gateway that may not read them.
pub struct PairText {
    /// Of the certificate's file.
    pub certificate: Vec<u8>,
    /// Of the key's file.
    pub key: Vec<u8>,
}

impl PairText {
    /// Reads the two files, and judges only whether they may be read and are no one else's to change.
    ///
    /// # Errors
    /// The first fault that is found, with the file it is in.
    pub fn read(files: &PairFiles) -> Result<Self, PairFault> {
        Ok(Self { certificate: read(&files.certificate, false)?, key: read(&files.key, true)? })
    }
}

impl Pair {
    /// Reads and judges the two files. Its dates are for [`Pair::check_dates`].
    ///
    /// # Errors
    /// The first fault that is found, with the file it is in.
    pub fn read(files: &PairFiles) -> Result<Self, PairFault> {
        let PairText { certificate, key } = PairText::read(files)?;
        Self::from_pem(files, &certificate, &key)
    }

    /// The same, of what somebody else has read from these files.
    ///
    /// # Errors
    /// As [`Pair::read`].
    pub fn from_pem(files: &PairFiles, certificate: &[u8], key: &[u8]) -> Result<Self, PairFault> {
        let of_chain = |problem| PairFault { path: files.certificate.clone(), problem };
        let of_key = |problem| PairFault { path: files.key.clone(), problem };
        let chain = chain(certificate).map_err(of_chain)?;
        let key = private_key(key).map_err(of_key)?;
        let leaf = chain.first().and_then(|leaf| Leaf::read(leaf));
        let leaf = leaf.ok_or_else(|| of_chain(Problem::BadCertificate))?;
        let provider = default_provider();
        let certified = match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
            Ok(certified) => certified,
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                // The key of a certificate that stands further down shows that only the order is wrong.
                let is_below = chain.iter().skip(1).any(|certificate| {
                    CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &provider).is_ok()
                });
                return Err(if is_below {
                    of_chain(Problem::WrongOrder)
                } else {
                    of_key(Problem::WrongKey(files.certificate.clone()))
                });
            }
            Err(Error::General(why)) => return Err(of_key(Problem::BadKey(why))),
            Err(error) => return Err(of_chain(Problem::BadKey(error.to_string()))),
        };
        if !is_in_order(&chain) {
            return Err(of_chain(Problem::WrongOrder));
        }
        if leaf.names.is_empty() {
            return Err(of_chain(Problem::NoName));
        }
        Ok(Self { files: files.clone(), leaf, certified: Arc::new(certified) })
    }

    /// Whether its time has come and is not over.
    ///
    /// # Errors
    /// [`Problem::Expired`] or [`Problem::Early`].
    pub fn check_dates(&self, now: SystemTime) -> Result<(), PairFault> {
        let fault = |problem| Err(PairFault { path: self.files.certificate.clone(), problem });
        if self.leaf.has_expired(now) {
            return fault(Problem::Expired(-self.leaf.days_left(now)));
        }
        if self.leaf.is_early(now) {
            return fault(Problem::Early);
        }
        Ok(())
    }
}

/// Reads a PEM file whole. A key must be its owner's secret.
pub(super) fn read(path: &Path, is_key: bool) -> Result<Vec<u8>, PairFault> {
    let fault = |problem| PairFault { path: path.to_owned(), problem };
    let unreadable = |error: io::Error| {
        fault(match error.kind() {
            io::ErrorKind::NotFound => Problem::Missing,
            io::ErrorKind::PermissionDenied => Problem::Forbidden,
            _ => Problem::Unreadable(error),
        })
    };
    // A pipe would make the opening wait.
    let metadata = path.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(fault(Problem::NoFile));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if is_key && mode & LOOSE != 0 {
        return Err(fault(Problem::LooseMode(mode)));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_MAX) {
        Ok(bytes)
    } else {
        Err(fault(Problem::TooLarge))
    }
}

/// The certificates of a PEM file, in its order.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    refuse_binary(pem)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX + 1).collect();
    let chain = chain.map_err(|_| Problem::BadCertificate)?;
    match chain.len() {
        0 => Err(Problem::NoCertificate),
        1..=CHAIN_MAX => Ok(chain),
        _ => Err(Problem::LongChain),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    refuse_binary(pem)?;
    let holds = |needle: &[u8]| memchr::memmem::find(pem, needle).is_some();
    if holds(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(Problem::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => Problem::NoKey,
        error => Problem::BadKey(error.to_string()),
    })
}

/// DER begins with a SEQUENCE; that of PKCS#12 holds first its version, 3.
fn refuse_binary(bytes: &[u8]) -> Result<(), Problem> {
    match bytes {
        [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..] | [0x30, 0x80, 0x02, 0x01, 0x03, ..] => Err(Problem::Pkcs12),
        [0x30, 0x80..=0x84, ..] => Err(Problem::Der),
        _ => Ok(()),
    }
}

/// Whether each was signed by the next.
fn is_in_order(chain: &[CertificateDer<'_>]) -> bool {
    let links: Option<Vec<_>> = chain.iter().map(|certificate| link(certificate)).collect();
    links.is_some_and(|links| links.windows(2).all(|pair| pair[0].issuer == pair[1].subject))
}
