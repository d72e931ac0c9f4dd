//! What begins TLS with a server, as its configuration has it.

use std::collections::HashMap;

use crate::config::{Backend, BackendTls, HostPort, TlsVerify};
use crate::tls::{Connector, ConnectorFault, PairFiles, Pin, Verify};

/// What begins TLS with each backend, by its name. It is made before privileges are given up: only root may be able to read
/// keys.
pub type Connectors = HashMap<String, Connector>;

/// What begins TLS with a backend; `None` where it is spoken to in clear.
///
/// # Errors
/// Its authorities' file is no good, or it has no name that a certificate could have.
pub fn connector(backend: &Backend) -> Option<Result<Connector, ConnectorFault>> {
    if backend.tls == BackendTls::Off {
        return None;
    }
    let name = match (&backend.tls_name, &backend.address) {
        (Some(name), _) => name.clone(),
        (None, HostPort::Name(name, _)) => name.clone(),
        (None, HostPort::Address(address)) => address.ip().to_string(),
    };
    let verify = match (backend.verifies(), &backend.tls_ca) {
        (TlsVerify::Ca, Some(path)) => Verify::Ca(path.clone()),
        (TlsVerify::Roots | TlsVerify::Ca, _) => Verify::Roots,
        (TlsVerify::Pin, _) => Verify::Pins(backend.tls_pins.iter().map(|digest| Pin(*digest)).collect()),
        (TlsVerify::None, _) => Verify::Nothing,
    };
    let own = backend.tls_certificate.as_ref();
    let own = own.map(|own| PairFiles { certificate: own.certificate.clone(), key: own.key.clone() });
    Some(Connector::new(&name, &verify, backend.tls != BackendTls::Opportunistic, own.as_ref()))
}
