//! The housekeeping of the running gateway: what is to be done every second, and nobody waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::observe::events::{self, EventKind};
use crate::observe::{log, refusals, trace};
use crate::time::clock::now;

use super::memory::{self, HighWater};
use super::view::View;

/// Between two rounds of housekeeping.
const KEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// Between two summaries of what was too much to tell one by one.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// For as long as the gateway runs.
pub(super) async fn keep(view: Arc<View>) {
    let mut since_summary = Instant::now();
    let mut coverage = None;
    let mut sessions = HighWater::default();
    loop {
        view.verdicts.protect_backends(view.generation().backends.iter().flat_map(|backend| backend.state.addresses()));
        view.verdicts.sweep(now());
        let keeping = view.clone();
        let burst_is_over = sessions.has_fallen(view.admission.sessions(), Instant::now());
        // A disk may be slow, and the log and the health checks live on this thread.
        let keep = move || {
            keeping.keep_bans(false);
            if keeping.retired.sweep() || burst_is_over {
                memory::give_back();
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(keep).await {
            warn!(%error, "cannot keep the journal of bans");
        }
        if let Some(kernel) = &view.kernel {
            let now = kernel.coverage();
            if coverage.as_ref() != Some(&now) {
                events::emit(EventKind::Kernel, "kernel side", &now);
                coverage = Some(now);
            }
        }
        events::recent().gather();
        trace::sweep();
        view.log_levels.check();
        if since_summary.elapsed() >= SUMMARY_INTERVAL {
            since_summary = Instant::now();
            refusals::sum_up();
            log::sum_up();
        }
        tokio::time::sleep(KEEPING_INTERVAL).await;
    }
}
