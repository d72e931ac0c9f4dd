//! The service manager's watchdog (`WatchdogSec=`, sd_watchdog_enabled(3)): it hears from the gateway as long as every worker's
//! loop goes round, and starts it anew when it does not.

use std::time::Duration;

use tracing::error;

use super::notify;

/// Tells the service manager, where it asked for it, for as long as `all_beat`. It is asked at half the time that the service
/// manager waits.
pub(super) async fn watch(mut all_beat: impl FnMut() -> bool) {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(patience) = patience(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id()) else {
        return;
    };
    let mut hangs = false;
    loop {
        tokio::time::sleep(patience / 2).await;
        if all_beat() {
            notify::service_manager("WATCHDOG=1");
            hangs = false;
        } else if !std::mem::replace(&mut hangs, true) {
            error!("a worker hangs; the service manager is not told that all is well");
        }
    }
}

/// How long the service manager waits, if it watches this process.
fn patience(microseconds: Option<String>, watched: Option<String>, own: u32) -> Option<Duration> {
    let microseconds = microseconds?.parse().ok().filter(|microseconds| *microseconds > 0)?;
    let is_own = watched.is_none_or(|watched| watched.parse() == Ok(own));
    is_own.then_some(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_watched_answers() {
        for (microseconds, watched, expected) in [
            (Some("30000000"), None, Some(30)),
            (Some("30000000"), Some("7"), Some(30)),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("often"), None, None),
            (None, Some("7"), None),
        ] {
            let read = patience(microseconds.map(str::to_owned), watched.map(str::to_owned), 7);
            assert_eq!(read, expected.map(Duration::from_secs), "{microseconds:?} {watched:?}");
        }
    }
}
