//! The running gateway as the metrics listener shows it.

use serde_json::json;

use crate::control::{Answers as _, ProofState, Severity};
use crate::metrics::{NotReady, Reporter};
use crate::observe::counters::Totals;
use crate::observe::gauges::{self, Sample, number};
use crate::observe::{events, log};
use crate::time::clock::{now, since_1970};

use super::view::View;

/// Events and bans that the page shows.
const EVENTS_SHOWN: usize = 60;
const BANS_SHOWN: usize = 50;

impl Reporter for View {
    fn totals(&self) -> Totals {
        self.counters.totals()
    }

    fn samples(&self) -> Vec<Sample> {
        let generation = self.generation();
        let mut samples = vec![
            Sample::labelled(&gauges::BUILD, [env!("CARGO_PKG_VERSION")], 1.0),
            Sample::labelled(&gauges::CONFIG, [&generation.origin.digest], 1.0),
            Sample::plain(&gauges::START_TIME, since_1970().as_secs_f64() - self.started.elapsed().as_secs_f64()),
            Sample::plain(&gauges::READY, truth(self.ready().is_ok())),
            Sample::plain(&gauges::SESSIONS, number(self.counters.totals().sessions_active())),
            Sample::plain(
                &gauges::SESSIONS_MAX,
                number(u64::try_from(generation.config.limits.sessions).unwrap_or(u64::MAX)),
            ),
            Sample::plain(&gauges::BANS, size(self.verdicts.count(now()))),
            Sample::plain(&gauges::LOG_LINES_LOST, number(log::lost_lines())),
            Sample::plain(&gauges::EVENTS_LOST, number(events::recent().lost())),
        ];
        self.sample_backends(&mut samples);
        self.sample_routes(&generation, &mut samples);
        for (index, certificate) in self.certificates(&generation).iter().enumerate() {
            if let Some(facts) = &certificate.in_use {
                let place = (index + 1).to_string();
                samples.push(Sample::labelled(&gauges::CERTIFICATE_DAYS, [&place], days(facts.days_left)));
            }
        }
        let problems = self.overview().problems;
        for severity in Severity::ALL {
            let count = problems.iter().filter(|problem| problem.severity == severity).count();
            samples.push(Sample::labelled(&gauges::PROBLEMS, [severity.as_str()], size(count)));
        }
        if let Some(kernel) = &self.kernel {
            kernel.sample(&mut samples);
        }
        sample_process(&mut samples);
        samples
    }

    fn ready(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            Err(NotReady::Draining)
        } else if self.generation().backends.iter().any(|backend| backend.state.health().healthy) {
            Ok(())
        } else {
            Err(NotReady::NoBackend)
        }
    }

    fn page_state(&self) -> String {
        let bans = self.newest_bans(BANS_SHOWN);
        json!({
            "at_ms": u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX),
            "status": self.status(),
            "bans": bans.bans,
            "events": events::recent().since(0, EVENTS_SHOWN),
        })
        .to_string()
    }
}

impl View {
    fn sample_backends(&self, samples: &mut Vec<Sample>) {
        for backend in self.generation().backends.iter() {
            let name = backend.state.name.as_str();
            samples.push(Sample::labelled(&gauges::BACKEND_HEALTHY, [name], truth(backend.state.health().healthy)));
            let last = backend.proof.last();
            for state in ProofState::ALL {
                let is = truth(last.state == state);
                samples.push(Sample::labelled(&gauges::BACKEND_PROOF, [name, state.as_str()], is));
            }
            if let Some(at) = last.checked_at {
                samples.push(Sample::labelled(&gauges::BACKEND_PROVEN, [name], number(at)));
            }
        }
    }
}

/// What the system says of this process; left out where it does not.
fn sample_process(samples: &mut Vec<Sample>) {
    // Pages, of which the second number is what is in memory (proc(5)).
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    if let Some(pages) = resident {
        samples.push(Sample::plain(&gauges::MEMORY, number(pages * size_of_page())));
    }
    // Since Linux 6.2 the size of the folder is how many there are; before, it is 0.
    if let Ok(count @ 1..) = std::fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        samples.push(Sample::plain(&gauges::OPEN_FILES, number(count)));
    }
}

fn size_of_page() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn size(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

#[expect(clippy::cast_precision_loss, reason = "no certificate lasts that long")]
fn days(count: i64) -> f64 {
    count as f64
}
