//! The certificates in use: chosen by the name that a client asks for and by what it can verify, exchanged while the
//! gateway runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustls::CipherSuite;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::leaf::{KeyType, Leaf};
use super::pair::{Pair, PairFault, PairFiles, Problem};

/// One listed pair, and how it fares.
#[derive(Debug, Clone)]
pub struct CertificateState {
    /// Where it lies.
    pub files: PairFiles,
    /// What is in use; `None` while nothing of these files could be had.
    pub leaf: Option<Leaf>,
    /// Why what now lies in its files is not in use.
    pub problem: Option<String>,
}

/// The pairs of the configuration, in its order; the first is the default.
#[derive(Debug)]
pub struct Certificates {
    chosen: RwLock<Arc<Choice>>,
    /// One for each listed pair.
    listed: Mutex<Vec<Listed>>,
}

/// A listed pair.
#[derive(Debug)]
struct Listed {
    files: PairFiles,
    in_use: Option<Pair>,
    problem: Option<String>,
    /// Somebody who may read the files hands them over: that the gateway may not is no news then.
    is_handed_over: bool,
}

/// What came of a pair that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandOver {
    /// It is in use from now on.
    Exchanged,
    /// It was in use already.
    Unchanged,
    /// It is no good, and what was in use stays so: why, and what to do.
    Refused(String),
    /// No such pair is listed.
    Unlisted,
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
    /// Of these files, of which none has been read.
    pub fn new(files: Vec<PairFiles>) -> Self {
        let listed = |files| Listed { files, in_use: None, problem: None, is_handed_over: false };
        Self {
            chosen: RwLock::new(Arc::new(Choice::new(Vec::new()))),
            listed: Mutex::new(files.into_iter().map(listed).collect()),
        }
    }

    /// Whether there is any to show. There may be none while only somebody else may read the files.
    pub fn is_empty(&self) -> bool {
        self.choice().pairs.is_empty()
    }

    /// Every pair, in the configuration's order.
    pub fn states(&self) -> Vec<CertificateState> {
        let state = |listed: &Listed| CertificateState {
            files: listed.files.clone(),
            leaf: listed.in_use.as_ref().map(|pair| pair.leaf.clone()),
            problem: listed.problem.clone(),
        };
        self.lock().iter().map(state).collect()
    }

    /// Where the pairs lie.
    pub fn files(&self) -> Vec<PairFiles> {
        self.lock().iter().map(|listed| listed.files.clone()).collect()
    }

    /// What of these files is in use.
    pub fn in_use(&self, files: &PairFiles) -> Option<Pair> {
        self.lock().iter().find(|listed| listed.files == *files)?.in_use.clone()
    }

    /// Reads all files again, and takes what is new and good. What is broken leaves the old in use, and is logged once.
    pub fn reread(&self) {
        let read = self.files().iter().map(Pair::read).collect();
        self.take(read);
    }

    /// Takes what was read of each pair's files, in order. How many are new.
    pub fn take(&self, read: Vec<Result<Pair, PairFault>>) -> usize {
        let mut listed = self.lock();
        let taken = listed.iter_mut().zip(read).map(|(listed, read)| match read {
            Err(PairFault { problem: Problem::Forbidden, .. }) if listed.is_handed_over => HandOver::Unchanged,
            read => listed.take(read),
        });
        let exchanged = taken.filter(|taken| *taken == HandOver::Exchanged).count();
        self.choose(&listed, exchanged > 0);
        exchanged
    }

    /// Takes what somebody who may read these files has read from them.
    pub fn hand_over(&self, files: &PairFiles, certificate: &[u8], key: &[u8]) -> HandOver {
        let mut all = self.lock();
        let Some(listed) = all.iter_mut().find(|listed| listed.files == *files) else { return HandOver::Unlisted };
        listed.is_handed_over = true;
        let taken = listed.take(Pair::from_pem(files, certificate, key));
        self.choose(&all, taken == HandOver::Exchanged);
        taken
    }

    fn choose(&self, listed: &[Listed], changed: bool) {
        if changed {
            let pairs = listed.iter().filter_map(|listed| listed.in_use.clone()).collect();
            *self.chosen.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Choice::new(pairs));
        }
    }

    fn choice(&self) -> Arc<Choice> {
        self.chosen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Listed>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn take(&mut self, read: Result<Pair, PairFault>) -> HandOver {
        match read {
            Ok(new) => {
                self.problem = None;
                if self.in_use.as_ref().is_some_and(|old| old.certified.cert == new.certified.cert) {
                    return HandOver::Unchanged;
                }
                let names = new.leaf.names.join(", ");
                info!(file = %new.files.certificate.display(), names, "a certificate is in use");
                self.in_use = Some(new);
                HandOver::Exchanged
            }
            Err(fault) => {
                let sentence = format!("{fault}; {}", fault.problem.help());
                if self.problem.as_ref() != Some(&sentence) {
                    warn!(problem = sentence, "a certificate is not taken; one that was in use stays so");
                }
                self.problem = Some(sentence.clone());
                HandOver::Refused(sentence)
            }
        }
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
