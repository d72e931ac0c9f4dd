//! The kernel side by itself: a frame in, a verdict and a counter out, in the running kernel and on no network card.

pub mod frame;
pub mod pins;
pub mod rig;

use std::io::Write as _;

use rig::Rig;

/// A loaded program, or `None` where there is no BPF to load it into: the scenario is then to return at once. That is said
/// where cargo does not capture it, and with `SMTP_GATEWAY_TESTS=all` it is a failure.
pub fn available(scenario: &str) -> Option<Rig> {
    let why = match Rig::load() {
        Ok(rig) => return Some(rig),
        Err(why) => why,
    };
    let all = std::env::var_os("SMTP_GATEWAY_TESTS").is_some_and(|value| value == "all");
    assert!(!all, "{scenario} cannot run, and SMTP_GATEWAY_TESTS=all: {why}");
    // Nothing to be done if standard error is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {scenario}: {why}");
    None
}
