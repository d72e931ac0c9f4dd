//! The certificates in use: chosen by the name that a client asks for and by what it can verify, exchanged while the
//! gateway runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::CipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::leaf::KeyType;
use super::pair::{Pair, PairFault, PairFiles};

/// One listed pair, and how it fares.
#[derive(Debug, Clone)]
pub struct CertificateState {
    /// What is in use.
    pub pair: Pair,
    /// Why what now lies in its files is not in use.
    pub problem: Option<String>,
}

/// The pairs of the configuration, in its order; the first is the default. Never empty.
#[derive(Debug)]
pub struct Certificates {
    chosen: RwLock<Arc<Choice>>,
    /// One for each pair.
    problems: Mutex<Vec<Option<String>>>,
}

/// The pairs, and which are for which name.
#[derive(Debug)]
struct Choice {
    pairs: Vec<Pair>,
    /// Names as they stand in the certificates; of `*.example.com`, `.example.com`.
    by_name: HashMap<String, Vec<usize>>,
}

impl Choice {
    fn new(pairs: Vec<Pair>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, pair) in pairs.iter().enumerate() {
            for name in &pair.leaf.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                let indices = by_name.entry(name.to_owned()).or_default();
                if !indices.contains(&index) {
                    indices.push(index);
                }
            }
        }
        Self { pairs, by_name }
    }

    /// The pairs for this name, best first: those of the exact name, those of its wildcard, those beside the default, all.
    fn candidates<'a>(&'a self, name: Option<&str>) -> impl Iterator<Item = &'a Pair> {
        let find = |name: &str| self.by_name.get(name);
        let exact = name.and_then(find);
        let wildcard = name.and_then(|name| name.find('.').map(|dot| &name[dot..])).and_then(find);
        let beside = self.pairs.first().and_then(|pair| pair.leaf.names.first()).and_then(|name| find(name));
        let indices = exact.into_iter().chain(wildcard).flatten().copied();
        let indices = indices.chain(std::iter::once(0)).chain(beside.into_iter().flatten().copied());
        indices.chain(0..self.pairs.len()).filter_map(|index| self.pairs.get(index))
    }
}

impl Certificates {
    /// Of pairs that were read; the first is the default.
    pub fn new(pairs: Vec<Pair>) -> Self {
        let problems = Mutex::new(vec![None; pairs.len()]);
        Self { chosen: RwLock::new(Arc::new(Choice::new(pairs))), problems }
    }

    /// Every pair in use, in the configuration's order.
    pub fn states(&self) -> Vec<CertificateState> {
        let problems = self.lock_problems().clone();
        let pairs = self.choice().pairs.clone();
        pairs.into_iter().zip(problems).map(|(pair, problem)| CertificateState { pair, problem }).collect()
    }

    /// Where the pairs lie.
    pub fn files(&self) -> Vec<PairFiles> {
        self.choice().pairs.iter().map(|pair| pair.files.clone()).collect()
    }

    /// Reads all files again, and takes what is new and good. What is broken leaves the old in use, and is logged once.
    pub fn reread(&self) {
        let read = self.files().iter().map(Pair::read).collect();
        self.take(read);
    }

    /// Takes what was read of each pair's files, in order. How many are new.
    pub fn take(&self, read: Vec<Result<Pair, PairFault>>) -> usize {
        let old = self.choice();
        let mut problems = self.lock_problems();
        let mut pairs = old.pairs.clone();
        let mut exchanged = 0;
        for ((read, pair), problem) in read.into_iter().zip(&mut pairs).zip(problems.iter_mut()) {
            match read {
                Ok(new) => {
                    *problem = None;
                    if new.certified.cert != pair.certified.cert {
                        let names = new.leaf.names.join(", ");
                        info!(file = %new.files.certificate.display(), names, "a new certificate is in use");
                        *pair = new;
                        exchanged += 1;
                    }
                }
                Err(fault) => {
                    let sentence = format!("{fault}; {}", fault.problem.help());
                    if problem.as_ref() != Some(&sentence) {
                        warn!(problem = sentence, "a certificate is not exchanged, the old one stays in use");
                    }
                    *problem = Some(sentence);
                }
            }
        }
        drop(problems);
        if exchanged > 0 {
            *self.chosen.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Choice::new(pairs));
        }
        exchanged
    }

    fn choice(&self) -> Arc<Choice> {
        self.chosen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock_problems(&self) -> std::sync::MutexGuard<'_, Vec<Option<String>>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let choice = self.choice();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let usable = choice.candidates(name.as_deref()).find(|pair| can_use(&hello, pair));
        // What fits nobody is said by the handshake, and counted there.
        usable.or(choice.pairs.first()).map(|pair| pair.certified.clone())
    }
}

/// Whether the client can verify such a signature, and offers a cipher suite that goes with it.
fn can_use(hello: &ClientHello<'_>, pair: &Pair) -> bool {
    let signs = pair.certified.key.choose_scheme(hello.signature_schemes()).is_some();
    signs
        && hello.cipher_suites().iter().any(|suite| match suite {
            CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS13_AES_256_GCM_SHA384
            | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => true,
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => matches!(pair.leaf.key, KeyType::Rsa(_)),
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => !matches!(pair.leaf.key, KeyType::Rsa(_)),
            _ => false,
        })
}
