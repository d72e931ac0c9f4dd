//! TLS as `status` shows it: of one connection, of a backend, and of all clients together.

use crate::backend::Health;
use crate::config;
use crate::control::{BackendTlsStatus, TlsStatus, TlsTotals};
use crate::observe::counters::{MessageOutcome, Totals};
use crate::observe::declare::Label;
use crate::observe::numbers::FamilyTotals;
use crate::tls::TlsFacts;

pub(super) fn of_connection(facts: &TlsFacts) -> TlsStatus {
    TlsStatus {
        version: facts.version.to_owned(),
        cipher: facts.cipher(),
        group: facts.group.to_owned(),
        verified: facts.verified,
    }
}

pub(super) fn of_backend(config: &config::Backend, health: &Health) -> BackendTlsStatus {
    BackendTlsStatus {
        mode: config.tls.as_str().to_owned(),
        verify: config.verifies().as_str().to_owned(),
        agreed: health.tls.as_ref().map(of_connection),
        clear_text: health.clear_text.clone(),
    }
}

pub(super) fn of_clients(totals: &Totals) -> TlsTotals {
    let accepted = totals.messages_total.of(MessageOutcome::Accepted);
    TlsTotals {
        sessions_total: counts(&totals.tls_handshakes_total),
        ciphers_total: counts(&totals.tls_ciphers_total),
        groups_total: counts(&totals.tls_groups_total),
        resumed_total: totals.tls_resumed_total,
        messages_total: totals.tls_messages_total,
        clear_sessions_total: totals.clear_sessions_total,
        // Read one after the other while sessions go on.
        clear_messages_total: accepted.saturating_sub(totals.tls_messages_total),
        faults_total: counts(&totals.tls_faults_total),
    }
}

pub(super) fn counts<L: Label>(totals: &FamilyTotals<L>) -> std::collections::BTreeMap<String, u64> {
    let counted = L::ALL.iter().map(|label| (label.as_str().to_owned(), totals.of(*label)));
    counted.filter(|(_, count)| *count > 0).collect()
}
