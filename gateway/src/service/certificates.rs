//! The configuration's certificates: read, judged, watched while the gateway runs, and handed over where it may not read them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::backend::{Connectors, connector};
use crate::config::{self, Config, MinimumVersion};
use crate::control::{CertificateFacts, CertificateStatus, ListenerStatus, NotDone, RenewAnswer, Renewal};
use crate::tls::{
    Acceptor, CertificateState, Certificates, ConnectorFault, HandOver, Leaf, Pair, PairFault, PairFiles, Problem,
    TicketKeys, TlsVersion, Watch,
};

use super::backends::Backends;

/// What is wrong with files that the configuration names, each with its place in it.
#[derive(Debug)]
pub struct Faults(Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n\n"))
    }
}

impl std::error::Error for Faults {}

/// What begins clients' TLS; `None` where the configuration has no certificate. One that has expired is used all the same,
/// for most senders do not look, and mail that does not come helps nobody. What only somebody else may read stays as it is in
/// `known`, or is to be handed over.
///
/// `tickets` are the keys of session tickets that are known already; without, there are fresh ones.
///
/// # Errors
/// Every pair that cannot be used.
pub(super) fn acceptor(
    config: &Config,
    known: Option<&Certificates>,
    tickets: Option<Arc<TicketKeys>>,
) -> Result<Option<Acceptor>, Faults> {
    if config.tls.certificates.is_empty() {
        return Ok(None);
    }
    let (mut files, mut read) = (Vec::new(), Vec::new());
    for (configured, judged) in config.tls.certificates.iter().zip(pairs(config)?) {
        let of = files_of(configured);
        let judged = judged.or_else(|fault| known.and_then(|known| known.in_use(&of)).ok_or(fault));
        if let Ok(Err(fault)) = judged.as_ref().map(|pair| pair.check_dates(SystemTime::now())) {
            warn!("{fault}; {}", fault.problem.help());
        }
        files.push(of);
        read.push(judged);
    }
    let certificates = Certificates::new(files);
    certificates.take(read);
    let minimum = match config.tls.minimum_version {
        MinimumVersion::Tls12 => TlsVersion::Tls12,
        MinimumVersion::Tls13 => TlsVersion::Tls13,
    };
    let fresh = || TicketKeys::new().map(Arc::new).map_err(|fault| Faults(vec![fault.to_string()]));
    let tickets = tickets.map_or_else(fresh, Ok)?;
    let acceptor = Acceptor::new(Arc::new(certificates), tickets, minimum);
    acceptor.map(Some).map_err(|fault| Faults(vec![fault.to_string()]))
}

/// Whether all files can be used, and are good today.
///
/// # Errors
/// Every one that is not.
pub fn check(config: &Config) -> Result<(), Faults> {
    let mut faults = Vec::new();
    match pairs(config) {
        Err(Faults(unusable)) => faults.extend(unusable),
        Ok(pairs) => {
            for (judged, files) in pairs.into_iter().zip(&config.tls.certificates) {
                let judged = judged.and_then(|pair| pair.check_dates(SystemTime::now()));
                faults.extend(judged.err().map(|fault| placed(files, &fault)));
            }
        }
    }
    faults.extend(connectors(config, None).err().into_iter().flat_map(|Faults(faults)| faults));
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// What begins TLS with each backend. What only somebody else may read stays as it is in `old`, where the same is asked for.
///
/// # Errors
/// Every backend for which it cannot be had.
pub(crate) fn connectors(config: &Config, old: Option<&Backends>) -> Result<Connectors, Faults> {
    let (mut connectors, mut faults) = (Connectors::new(), Vec::new());
    for backend in &config.backends {
        let known = || old.and_then(|old| old.iter().find(|old| is_secured_alike(&old.config, backend)));
        match connector(backend) {
            None => {}
            Some(Ok(connector)) => drop(connectors.insert(backend.name.clone(), connector)),
            Some(Err(fault)) => match known().filter(|_| fault.is_forbidden()).and_then(|old| old.state.connector()) {
                Some(connector) => drop(connectors.insert(backend.name.clone(), connector.clone())),
                None => faults.push(of_backend(backend, &fault)),
            },
        }
    }
    // The servers of one backend have its faults in common.
    faults.dedup();
    if faults.is_empty() { Ok(connectors) } else { Err(Faults(faults)) }
}

/// Whether TLS with both is begun alike.
fn is_secured_alike(old: &config::Backend, new: &config::Backend) -> bool {
    let how = |it: &config::Backend| {
        let own = it.tls_certificate.clone().map(|own| (own.certificate, own.key));
        (it.tls, it.verifies(), it.tls_name.clone(), it.tls_ca.clone(), it.tls_pins.clone(), own)
    };
    (&old.name, &old.address) == (&new.name, &new.address) && how(old) == how(new)
}

fn of_backend(backend: &config::Backend, fault: &ConnectorFault) -> String {
    let config::Backend { tls_ca, tls_ca_place, tls_certificate, tls_place, .. } = backend;
    let is_of_ca = fault.path().is_some_and(|path| tls_ca.as_deref() == Some(path));
    let place = match (fault.path(), tls_certificate) {
        (Some(_), _) if is_of_ca => tls_ca_place,
        (Some(_), Some(own)) => &own.place,
        _ => tls_place,
    };
    place.said(fault.to_string(), fault.help())
}

/// Each pair, or that it may not be read; whatever else is wrong with one is a fault.
fn pairs(config: &Config) -> Result<Vec<Result<Pair, PairFault>>, Faults> {
    let (mut pairs, mut faults): (Vec<Result<Pair, PairFault>>, Vec<String>) = (Vec::new(), Vec::new());
    for files in &config.tls.certificates {
        match Pair::read(&files_of(files)) {
            Err(fault) if matches!(fault.problem, Problem::Forbidden) => pairs.push(Err(fault)),
            Err(fault) => faults.push(placed(files, &fault)),
            Ok(pair) => {
                if let Some(name) = pairs.iter().flatten().find_map(|other| in_common(other, &pair)) {
                    let message = format!("there are two certificates for `{name}` with the same kind of key");
                    let help = "delete one of the two; ECDSA and RSA may stand side by side";
                    faults.push(at(files, message, help));
                }
                pairs.push(Ok(pair));
            }
        }
    }
    if faults.is_empty() { Ok(pairs) } else { Err(Faults(faults)) }
}

fn files_of(files: &config::CertificateFiles) -> PairFiles {
    PairFiles { certificate: files.certificate.clone(), key: files.key.clone() }
}

/// A name that both are for, where clients could not tell them apart by their keys.
fn in_common(one: &Pair, other: &Pair) -> Option<String> {
    let is_shared = |name: &&String| other.leaf.names.contains(name);
    let alike = one.leaf.key.is_like(other.leaf.key);
    one.leaf.names.iter().find(is_shared).filter(|_| alike).cloned()
}

fn placed(files: &config::CertificateFiles, fault: &PairFault) -> String {
    at(files, fault.to_string(), fault.problem.help())
}

fn at(files: &config::CertificateFiles, message: String, help: &str) -> String {
    files.place.said(message, help)
}

/// Exchanges certificates when their files change, until what it returns is dropped.
pub(super) fn watch(certificates: Arc<Certificates>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    const ELSE: &str =
        "a renewed certificate is taken at the next start, or when `smtp-gateway certificates renew` hands it over";
    match Watch::new(&certificates.files()) {
        Err(fault) => warn!("{fault}: {ELSE}"),
        Ok(mut watch) => {
            task.spawn(async move {
                while let Ok(()) = watch.changed().await {
                    certificates.reread();
                }
                error!("certificates are no longer watched: {ELSE}");
            });
        }
    }
    task
}

/// Each pair as `status` shows it; all listeners that speak TLS have them all.
pub(super) fn statuses(certificates: &Certificates, listeners: &[ListenerStatus]) -> Vec<CertificateStatus> {
    let now = SystemTime::now();
    let users: Vec<_> = listeners.iter().filter(|listener| listener.tls != "off").map(|l| l.address).collect();
    let facts = |leaf: Leaf| CertificateFacts {
        days_left: leaf.days_left(now),
        key_type: leaf.key.to_string(),
        key_sha256: leaf.key_digest_hex(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        names: leaf.names,
        issuer: leaf.issuer,
        self_signed: leaf.self_signed,
    };
    let status = |CertificateState { files, leaf, problem }: CertificateState| CertificateStatus {
        certificate: files.certificate.display().to_string(),
        key: files.key.display().to_string(),
        in_use: leaf.map(facts),
        problem,
        listeners: users.clone(),
    };
    certificates.states().into_iter().map(status).collect()
}

/// Takes a pair that root has read, if it is one that is listed.
pub(super) fn hand_over(certificates: &Certificates, renewal: &Renewal) -> Result<RenewAnswer, NotDone> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let is_meant = |files: &PairFiles| {
        absolute(&files.certificate) == absolute(&renewal.certificate) && absolute(&files.key) == absolute(&renewal.key)
    };
    let meant = certificates.files().into_iter().find(is_meant);
    let taken = meant.map(|files| certificates.hand_over(&files, &renewal.certificate_text.0, &renewal.key_text.0));
    match taken {
        Some(HandOver::Exchanged) => Ok(RenewAnswer::Exchanged),
        Some(HandOver::Unchanged) => Ok(RenewAnswer::Unchanged),
        Some(HandOver::Refused(why)) => Ok(RenewAnswer::Kept { why }),
        Some(HandOver::Unlisted) | None => Err(NotDone::new(format!(
            "the running gateway has no certificate {} with the key {} in `tls.certificates`; `smtp-gateway reload` takes a changed \
             configuration",
            renewal.certificate.display(),
            renewal.key.display()
        ))),
    }
}

#[cfg(test)]
mod tests;
