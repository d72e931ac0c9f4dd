//! The configuration's certificates: read, judged, and watched while the gateway runs.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{error, warn};

use crate::backend::connector;
use crate::config::{self, Config, MinimumVersion};
use crate::tls::{Acceptor, Certificates, Pair, PairFault, PairFiles, TicketKeys, TlsVersion, Watch};

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
/// for most senders do not look, and mail that does not come helps nobody.
///
/// # Errors
/// Every pair that cannot be used.
pub fn acceptor(config: &Config) -> Result<Option<Acceptor>, Faults> {
    let pairs = pairs(config)?;
    if pairs.is_empty() {
        return Ok(None);
    }
    for pair in &pairs {
        if let Err(fault) = pair.check_dates(SystemTime::now()) {
            warn!("{fault}; {}", fault.problem.help());
        }
    }
    let minimum = match config.tls.minimum_version {
        MinimumVersion::Tls12 => TlsVersion::Tls12,
        MinimumVersion::Tls13 => TlsVersion::Tls13,
    };
    let tickets = TicketKeys::new().map_err(|fault| Faults(vec![fault.to_string()]))?;
    let acceptor = Acceptor::new(Arc::new(Certificates::new(pairs)), Arc::new(tickets), minimum);
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
            for (pair, files) in pairs.iter().zip(&config.tls.certificates) {
                faults.extend(pair.check_dates(SystemTime::now()).err().map(|fault| placed(files, &fault)));
            }
        }
    }
    for backend in &config.backends {
        if let Some(Err(fault)) = connector(backend) {
            faults.push(format!("the backend `{}`: {fault}", backend.name));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

fn pairs(config: &Config) -> Result<Vec<Pair>, Faults> {
    let (mut pairs, mut faults): (Vec<Pair>, Vec<String>) = (Vec::new(), Vec::new());
    for files in &config.tls.certificates {
        let read = Pair::read(&PairFiles { certificate: files.certificate.clone(), key: files.key.clone() });
        match read {
            Err(fault) => faults.push(placed(files, &fault)),
            Ok(pair) => {
                if let Some(name) = pairs.iter().find_map(|other| in_common(other, &pair)) {
                    let message = format!("there are two certificates for `{name}` with the same kind of key");
                    let help = "delete one of the two; ECDSA and RSA may stand side by side";
                    faults.push(at(files, message, help));
                }
                pairs.push(pair);
            }
        }
    }
    if faults.is_empty() { Ok(pairs) } else { Err(Faults(faults)) }
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
    files.place.clone().found(message, help.to_owned()).to_string()
}

/// Exchanges certificates when their files change, as long as the gateway runs.
pub(super) fn watch(certificates: Arc<Certificates>) {
    match Watch::new(&certificates.files()) {
        Err(fault) => warn!("{fault}: a renewed certificate is taken only at the next start"),
        Ok(mut watch) => {
            tokio::spawn(async move {
                while let Ok(()) = watch.changed().await {
                    certificates.reread();
                }
                error!("certificates are no longer watched: a renewed one is taken only at the next start");
            });
        }
    }
}
