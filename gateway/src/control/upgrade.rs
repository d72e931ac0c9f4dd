//! What an upgrade needs to know of the gateway that runs.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

/// Tells programs apart: the file that a process runs, whatever has its name by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramId {
    device: u64,
    inode: u64,
}

impl ProgramId {
    /// Of this process.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn own() -> io::Result<Self> {
        // Leads to the file even if it was deleted or replaced.
        let metadata = fs::metadata("/proc/self/exe")?;
        Ok(Self { device: metadata.st_dev(), inode: metadata.st_ino() })
    }
}

/// How a successor is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeAnswer {
    /// The running gateway's process.
    pub process: u32,
    /// The systemd unit that it belongs to: only systemd can start a process in there.
    pub unit: Option<String>,
    /// What a successor must know of its service manager, as environment variables.
    pub environment: Vec<(String, String)>,
}

impl UpgradeAnswer {
    /// Of this process.
    pub fn own() -> Self {
        let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let environment: Vec<_> = ["NOTIFY_SOCKET", "WATCHDOG_USEC"].into_iter().filter_map(variable).collect();
        // Who is not asked to notify is no service of systemd's, though it may have been started from one.
        let unit = if environment.is_empty() { None } else { own_unit() };
        Self { process: std::process::id(), unit, environment }
    }
}

/// The systemd service that this process belongs to.
pub fn own_unit() -> Option<String> {
    service(&fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The innermost service of what /proc/PID/cgroup says (cgroups(7)).
fn service(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let services = paths.filter_map(|path| path.rsplit('/').find(|part| part.ends_with(".service")));
    services.map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_service() {
        for (cgroups, expected) in [
            ("0::/system.slice/smtp-gateway.service\n", Some("smtp-gateway.service")),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service", Some("x.service")),
            ("12:pids:/\n1:name=systemd:/system.slice/a.service/control\n0::/\n", Some("a.service")),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(service(cgroups).as_deref(), expected, "{cgroups}");
        }
    }
}
