//! `status --check`: one line and an exit code for monitoring plugins, in the words of the Monitoring Plugins guidelines
//! (OK 0, WARNING 1, CRITICAL 2, UNKNOWN 3; numbers behind `|`).

use std::io::{self, Write as _};
use std::path::Path;

use crate::control::{AskError, Problem, Severity, Status, ask_status};
use crate::observe::show::printable;

use super::failure::Failure;
use super::socket::shown;

/// What a monitoring system makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServiceState {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl ServiceState {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Says it, and returns the exit code.
pub(super) fn check(socket: &Path) -> Result<u8, Failure> {
    let (verdict, text) = judge(ask_status(socket));
    shown(writeln!(io::stdout().lock(), "SMTP GATEWAY {} - {text}", verdict.word()))?;
    Ok(verdict as u8)
}

fn judge(status: Result<Status, AskError>) -> (ServiceState, String) {
    let status = match status {
        Ok(status) => status,
        // A gateway that does not run takes no mail; one that cannot be asked may.
        Err(error @ AskError::NotRunning(_)) => return (ServiceState::Critical, one_line(&error.to_string())),
        Err(error) => return (ServiceState::Unknown, one_line(&error.to_string())),
    };
    let verdict = match status.problems.first().map(|problem| problem.severity) {
        None => ServiceState::Ok,
        Some(Severity::Warning) => ServiceState::Warning,
        Some(Severity::Critical) => ServiceState::Critical,
    };
    let words = |problem: &Problem| one_line(&problem.what);
    let what = match verdict {
        ServiceState::Ok => {
            format!("{} sessions, {} messages accepted", status.sessions.active, status.messages.accepted_total)
        }
        _ => status.problems.iter().map(words).collect::<Vec<_>>().join("; "),
    };
    (verdict, format!("{what} | {}", numbers(&status)))
}

/// As `label=value[unit];warn;critical;least;most`; `c` for what only grows.
fn numbers(status: &Status) -> String {
    let Status { sessions, messages, .. } = status;
    let refusals: u64 = status.refusals_total.values().sum();
    format!(
        "sessions={};{};{};0;{} messages={}c rejected={}c deferred={}c refusals={refusals}c bans={}",
        sessions.active,
        sessions.limit * 9 / 10,
        sessions.limit,
        sessions.limit,
        messages.accepted_total,
        messages.rejected_total,
        messages.deferred_total,
        status.xdp.bans
    )
}

/// Neither a line's end nor the sign that numbers follow.
fn one_line(text: &str) -> String {
    printable(&text.replace(['\n', '\r'], " ").replace('|', "/")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample_status;

    fn with(problems: &[(Severity, &str)]) -> Status {
        let problem =
            |(severity, what): &(Severity, &str)| Problem { severity: *severity, what: (*what).into(), mend: None };
        Status { problems: problems.iter().map(problem).collect(), ..sample_status() }
    }

    #[test]
    fn what_monitoring_is_told() {
        let numbers = "sessions=1;18000;20000;0;20000 messages=4c rejected=5c deferred=6c refusals=3c bans=0";
        for (status, verdict, text) in [
            (Ok(with(&[])), ServiceState::Ok, format!("1 sessions, 4 messages accepted | {numbers}")),
            (Ok(with(&[(Severity::Warning, "a|b\nc")])), ServiceState::Warning, format!("a/b c | {numbers}")),
            (
                Ok(with(&[(Severity::Critical, "open"), (Severity::Warning, "full")])),
                ServiceState::Critical,
                format!("open; full | {numbers}"),
            ),
            (
                Err(AskError::NotAnswered("uid 5 may not ask".into())),
                ServiceState::Unknown,
                "the gateway refuses: uid 5 may not ask".into(),
            ),
        ] {
            assert_eq!(judge(status), (verdict, text));
        }
        let (verdict, text) = judge(Err(AskError::NotRunning("control.sock".into())));
        assert!(verdict == ServiceState::Critical && text.starts_with("no gateway answers"), "{text}");
    }
}
