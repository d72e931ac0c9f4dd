//! `selftest`: the relay proof, now. It needs no running gateway: the backends are asked from this host, and the front door
//! is this program's own.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use crate::config::{Backend, Config};
use crate::identity::names::Names;
use crate::proof::report::{BackendReport, OutcomeWord, Report};
use crate::proof::{Progress, Prover, State, text};
use crate::service::{Backends, certificates};

use super::failure::{DEFAULT_CONFIG, Failure, load};

const FOUND: u8 = 1;
const INCONCLUSIVE: u8 = 2;
const COULD_NOT_RUN: u8 = 3;

/// Columns of the progress bar itself.
const BAR: usize = 30;

#[derive(Debug, Args)]
pub(super) struct SelftestArguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Only this backend
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// One JSON object instead of a page
    #[arg(long)]
    json: bool,
}

/// The exit code is the verdict.
pub(super) fn selftest(arguments: &SelftestArguments) -> Result<u8, Failure> {
    let could_not = |error: &dyn std::fmt::Display| Failure { code: COULD_NOT_RUN, message: error.to_string() };
    let config = load(&arguments.config).map_err(|failure| Failure { code: COULD_NOT_RUN, ..failure })?;
    let wanted = wanted(&config, arguments.backend.as_deref()).map_err(|error| could_not(&error))?;
    let connectors = certificates::connectors(&config, None).map_err(|faults| could_not(&faults))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| could_not(&e))?;
    let report = runtime.block_on(async {
        let backends = Backends::watch(&config, &connectors).await;
        prove(config, backends, &wanted).await
    });
    let shown = if arguments.json {
        serde_json::to_string_pretty(&report).map_err(|error| could_not(&error))? + "\n"
    } else {
        text::render(&report, io::stdout().is_terminal())
    };
    match io::stdout().write_all(shown.as_bytes()) {
        // Whoever read this has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(could_not(&error)),
        _ => Ok(exit_code(&report)),
    }
}

/// By contract.
pub(super) fn exit_code(report: &Report) -> u8 {
    match report.outcome {
        OutcomeWord::Safe => 0,
        OutcomeWord::Found => FOUND,
        OutcomeWord::Inconclusive => INCONCLUSIVE,
    }
}

fn wanted(config: &Config, name: Option<&str>) -> Result<Vec<usize>, String> {
    let all = 0..config.backends.len();
    let Some(name) = name else { return Ok(all.collect()) };
    // A backend's name means all of its servers.
    let is_meant = |backend: &Backend| backend.name == name || config.pools[backend.pool].name == name;
    let found: Vec<_> = all.filter(|index| is_meant(&config.backends[*index])).collect();
    if found.is_empty() {
        let names: Vec<_> = config.backends.iter().map(|backend| format!("`{}`", backend.name)).collect();
        return Err(format!("there is no backend `{name}` in the configuration; it names {}", names.join(", ")));
    }
    Ok(found)
}

async fn prove(config: Config, backends: Backends, wanted: &[usize]) -> Report {
    let (names, _) = Names::spawn(&config.dns);
    let deadline = config.proof.deadline;
    let prover = Prover::new(Arc::new(config), backends.states(), &names);
    let mut reports = Vec::new();
    for &index in wanted {
        let mut bar = Bar::new(&prover.backends()[index].name);
        reports.push(patiently(&prover, index, deadline, &mut bar).await);
        bar.clear();
    }
    Report::new(reports)
}

/// One that puts the proof off is asked again when it said, as long as the deadline allows.
async fn patiently(prover: &Prover, index: usize, deadline: Duration, bar: &mut Bar) -> BackendReport {
    let until = Instant::now() + deadline;
    loop {
        let report = prover.prove(index, &mut |progress| bar.show(progress)).await;
        let again = report.ask_again.filter(|_| report.state == State::Inconclusive);
        match again.map(|wait| Instant::now() + wait) {
            Some(at) if at < until => bar.wait(at).await,
            _ => return report,
        }
    }
}

/// A line on standard error that shows how far it is, if somebody sees it.
struct Bar {
    name: String,
    is_seen: bool,
}

impl Bar {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_seen: io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: &Progress) {
        if !self.is_seen {
            return;
        }
        let Progress { done, total, what } = progress;
        let full = (BAR * done).checked_div(*total).unwrap_or(BAR).min(BAR);
        let (full, empty) = ("#".repeat(full), ".".repeat(BAR - full));
        // If it cannot be shown, the proof goes on.
        let _ = write!(io::stderr(), "\r\x1b[K{} [{full}{empty}] {done}/{total} {what}", self.name);
    }

    /// Counts down.
    async fn wait(&mut self, until: Instant) {
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.is_seen {
                // As above.
                let _ = write!(
                    io::stderr(),
                    "\r\x1b[K{} asks to come again; the next try is in {} s",
                    self.name,
                    left.as_secs() + 1
                );
            }
            sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    fn clear(&mut self) {
        if self.is_seen {
            // As above.
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
