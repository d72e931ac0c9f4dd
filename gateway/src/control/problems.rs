//! What needs the administrator, found in a status: each with what to do about it, the worst first.

use crate::observe::declare::Label as _;
use crate::observe::refusals::RefusalCause;

use super::certificates::days;
use super::{BackendStatus, CertificateStatus, Problem, ProofState, Severity, Status};

/// Of a hundred places, so many taken are close to the limit.
const CLOSE_PERCENT: u64 = 90;
/// The days before its end from which on a certificate is warned about.
const WARN_DAYS: i64 = 21;

/// What is wrong, as far as the status tells. `recent`: causes for which something was refused lately.
pub fn find_problems(status: &Status, recent: &[RefusalCause]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut found = |severity, what: String, mend: Option<String>| problems.push(Problem { severity, what, mend });
    for backend in &status.backends {
        of_backend(backend, &mut found);
    }
    let sessions = &status.sessions;
    if sessions.active >= sessions.limit {
        let what = format!("every place is taken ({} sessions), and further clients are turned away", sessions.active);
        found(Severity::Critical, what, RefusalCause::Sessions.mend().map(str::to_owned));
    } else if sessions.active * 100 >= sessions.limit * CLOSE_PERCENT {
        let what = format!("{} of {} places are taken", sessions.active, sessions.limit);
        found(Severity::Warning, what, RefusalCause::Sessions.mend().map(str::to_owned));
    } else if recent.contains(&RefusalCause::Sessions) {
        let what = "clients were turned away lately because every place was taken".to_owned();
        found(Severity::Warning, what, RefusalCause::Sessions.mend().map(str::to_owned));
    }
    if let Some(problem) = &status.xdp.problem {
        found(Severity::Warning, format!("the kernel side is not as asked for: {problem}"), None);
    }
    if status.xdp.failed_writes_total > 0 {
        let what = format!("{} verdicts could not be written to the kernel", status.xdp.failed_writes_total);
        found(Severity::Warning, what, Some("the log says why; the gateway refuses banned clients itself".to_owned()));
    }
    if status.log_lines_lost_total > 0 {
        let what = format!("{} log lines were lost", status.log_lines_lost_total);
        let mend = "see that whoever reads the gateway's standard error keeps up, and has room on its disk";
        found(Severity::Warning, what, Some(mend.to_owned()));
    }
    for backend in &status.backends {
        of_backend_tls(backend, &mut found);
        of_backend_logins(backend, &mut found);
    }
    for certificate in &status.certificates {
        of_certificate(certificate, &mut found);
    }
    for warning in &status.warnings {
        found(Severity::Warning, warning.clone(), None);
    }
    problems.sort_by_key(|problem| problem.severity);
    problems
}

fn of_backend(backend: &BackendStatus, found: &mut impl FnMut(Severity, String, Option<String>)) {
    let BackendStatus { name, healthy, drained, problem, proof, .. } = backend;
    if !healthy {
        let what = format!("the backend {name} is not well: {}", problem.as_deref().unwrap_or("it does not answer"));
        found(Severity::Critical, what, None);
    }
    if *drained {
        let how = format!("`smtp-gateway backend undrain {name}` gives it sessions again");
        found(Severity::Warning, format!("the backend {name} is drained and gets no sessions"), Some(how));
    }
    let how = || Some("`smtp-gateway selftest` says what to change there".to_owned());
    match proof.state {
        ProofState::Open => {
            found(Severity::Critical, format!("OPEN RELAY: the backend {name} relays for strangers"), how());
        }
        ProofState::Latent => {
            let what =
                format!("the relay proof of the backend {name} finds trust by which strangers may come to relay");
            found(Severity::Warning, what, how());
        }
        // One that does not answer cannot be proven either, which says nothing more.
        ProofState::Inconclusive if *healthy => {
            let why = proof.findings.first().map(|finding| format!(": {finding}")).unwrap_or_default();
            found(Severity::Warning, format!("the relay proof of the backend {name} shows nothing{why}"), how());
        }
        ProofState::Inconclusive | ProofState::NeverRun | ProofState::Proven | ProofState::SafeUnproven => {}
    }
}

fn of_backend_tls(backend: &BackendStatus, found: &mut impl FnMut(Severity, String, Option<String>)) {
    let BackendStatus { name, tls, .. } = backend;
    if matches!(&*tls.mode, "required" | "implicit") && tls.verify == "none" {
        let what = format!(
            "the certificate of the backend {name} is not verified: whoever stands between may read and change mail"
        );
        let mend = "write `tls_verify = \"roots\"`, `\"ca\"` or `\"pin\"` at its `[[backend]]`";
        found(Severity::Warning, what, Some(mend.to_owned()));
    }
    if let Some(why) = &tls.clear_text {
        let what = format!("mail goes to the backend {name} in clear text, for TLS with it fails: {why}");
        found(Severity::Warning, what, None);
    }
}

fn of_backend_logins(backend: &BackendStatus, found: &mut impl FnMut(Severity, String, Option<String>)) {
    if let Some(why) = backend.logins.as_ref().and_then(|logins| logins.refused.as_ref()) {
        let mend = "write `tls = \"required\"` at its `[[backend]]` once TLS with it works, or `clear_text_auth = true` if nobody \
                    else hears what is said on the way";
        let what = format!("nobody can log in at the backend {}: {why}", backend.name);
        found(Severity::Critical, what, Some(mend.to_owned()));
    }
}

fn of_certificate(status: &CertificateStatus, found: &mut impl FnMut(Severity, String, Option<String>)) {
    const RENEW: &str = "renew it; the gateway takes the new one by itself, or by `smtp-gateway certificates renew`";
    let renew = || Some(RENEW.to_owned());
    let CertificateStatus { certificate, in_use, problem, .. } = status;
    let Some(facts) = in_use else {
        let why = problem.as_deref().unwrap_or("it was not read");
        return found(Severity::Critical, format!("a certificate cannot be used: {why}"), None);
    };
    match (facts.days_left, problem) {
        (..0, _) => {
            let what = format!("the certificate {certificate} expired {}", days(facts.days_left));
            found(Severity::Critical, what, renew());
        }
        (_, Some(why)) => {
            found(Severity::Warning, format!("the old certificate {certificate} is still in use: {why}"), None);
        }
        (..=WARN_DAYS, None) => {
            let what = format!("the certificate {certificate} expires soon: {}", days(facts.days_left));
            found(Severity::Warning, what, renew());
        }
        _ => {}
    }
}

/// How long a refusal counts as lately, in seconds.
const RECENT_SECONDS: u64 = 600;

/// Causes for which something was refused within the last ten minutes.
pub fn recent_refusals() -> Vec<RefusalCause> {
    let recent = |cause: &RefusalCause| crate::observe::refusals::is_recent(*cause, RECENT_SECONDS);
    RefusalCause::ALL.iter().copied().filter(recent).collect()
}

#[cfg(test)]
mod tests {
    use super::super::certificates::tests::certificate;
    use super::super::status_page::tests::status;
    use super::super::{BackendTlsStatus, LoginStatus};
    use super::*;

    fn words(change: impl FnOnce(&mut Status), recent: &[RefusalCause]) -> Vec<(Severity, String)> {
        let mut status = status();
        status.backends.truncate(1);
        change(&mut status);
        find_problems(&status, recent).into_iter().map(|problem| (problem.severity, problem.what)).collect()
    }

    fn unverified() -> BackendTlsStatus {
        BackendTlsStatus { mode: "required".into(), verify: "none".into(), ..BackendTlsStatus::default() }
    }

    fn in_clear() -> BackendTlsStatus {
        let clear_text = Some("an alert".into());
        BackendTlsStatus {
            mode: "opportunistic".into(),
            verify: "none".into(),
            clear_text,
            ..BackendTlsStatus::default()
        }
    }

    fn in_secret_only() -> Option<LoginStatus> {
        Some(LoginStatus { refused: Some("in clear".into()), ..LoginStatus::default() })
    }

    #[test]
    fn nothing_is_wrong_when_nothing_is() {
        assert_eq!(words(|_| {}, &[]), []);
        assert_eq!(words(|status| status.backends[0].proof.state = ProofState::SafeUnproven, &[]), []);
    }

    #[test]
    fn each_thing_is_said_and_the_worst_first() {
        type Change = fn(&mut Status);
        let cases: [(Change, Severity, &str); 14] = [
            (
                |s| s.backends[0].tls = unverified(),
                Severity::Warning,
                "certificate of the backend exchange is not verified",
            ),
            (|s| s.backends[0].tls = in_clear(), Severity::Warning, "in clear text, for TLS with it fails: an alert"),
            (
                |s| s.backends[0].logins = in_secret_only(),
                Severity::Critical,
                "can log in at the backend exchange: in clear",
            ),
            (|s| s.warnings.push("this gateway is still root".into()), Severity::Warning, "this gateway is still root"),
            (|s| s.backends[0].proof.state = ProofState::Open, Severity::Critical, "OPEN RELAY: the backend exchange"),
            (|s| s.backends[0].proof.state = ProofState::Latent, Severity::Warning, "finds trust by which"),
            (|s| s.backends[0].proof.state = ProofState::Inconclusive, Severity::Warning, "shows nothing"),
            (|s| s.backends[0].healthy = false, Severity::Critical, "the backend exchange is not well"),
            (|s| s.backends[0].drained = true, Severity::Warning, "the backend exchange is drained"),
            (|s| s.sessions.active = s.sessions.limit, Severity::Critical, "every place is taken"),
            (|s| s.sessions.active = s.sessions.limit * 9 / 10, Severity::Warning, "places are taken"),
            (|s| s.xdp.problem = Some("no BPF".into()), Severity::Warning, "not as asked for: no BPF"),
            (|s| s.xdp.failed_writes_total = 1, Severity::Warning, "could not be written to the kernel"),
            (|s| s.log_lines_lost_total = 3, Severity::Warning, "3 log lines were lost"),
        ];
        for (change, severity, expected) in cases {
            let found = words(change, &[]);
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            assert!(found[0].0 == severity && found[0].1.contains(expected), "{expected}: {found:?}");
        }
        let all = words(|status| cases.iter().rev().for_each(|(change, ..)| change(status)), &[]);
        assert!(all.is_sorted_by_key(|(severity, _)| *severity) && all.len() >= 5, "{all:?}");
    }

    #[test]
    fn a_certificate_s_end_and_what_is_not_taken_are_said() {
        let days = |days: i64| certificate(days);
        let broken = |certificate| CertificateStatus { problem: Some("mx.key is no key".into()), ..certificate };
        for (status, expected) in [
            (days(90), None),
            (days(22), None),
            (days(21), Some((Severity::Warning, "the certificate /etc/mx.pem expires soon: 21 days left"))),
            (days(0), Some((Severity::Warning, "the certificate /etc/mx.pem expires soon: 0 days left"))),
            (days(-1), Some((Severity::Critical, "the certificate /etc/mx.pem expired 1 day ago"))),
            (
                broken(days(90)),
                Some((Severity::Warning, "the old certificate /etc/mx.pem is still in use: mx.key is no key")),
            ),
            (broken(days(-2)), Some((Severity::Critical, "the certificate /etc/mx.pem expired 2 days ago"))),
            (
                CertificateStatus { in_use: None, ..broken(days(90)) },
                Some((Severity::Critical, "a certificate cannot be used: mx.key is no key")),
            ),
        ] {
            let found = words(|page| page.certificates = vec![status], &[]);
            let expected: Vec<_> = expected.into_iter().map(|(severity, what)| (severity, what.to_owned())).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_set_up_that_turns_clients_away_is_said() {
        assert_eq!(words(|_| {}, &[RefusalCause::Sessions]).len(), 1);
        assert_eq!(words(|_| {}, &[RefusalCause::Relay, RefusalCause::Banned]), []);
    }
}
