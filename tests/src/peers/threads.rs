//! What the kernel's scheduler knows of a thread: how long it ran, and how long it could have run and did not, because others
//! had the CPU. So a machine that is busy with something else can be told from a program that is slow.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A thread of some process.
#[derive(Debug, Clone)]
pub struct Thread(PathBuf);

/// Since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// On a CPU.
    pub ran: Duration,
    /// For a CPU.
    pub waited: Duration,
}

impl Thread {
    /// The thread with this name.
    pub fn of(process: u32, name: &str) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process's threads");
        let mut threads = threads.map(|thread| thread.expect("a thread").path());
        let is_it =
            |thread: &PathBuf| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        Self(threads.find(is_it).unwrap_or_else(|| panic!("process {process} has no thread `{name}`")))
    }

    /// The one that calls.
    pub fn own() -> Self {
        Self(fs::canonicalize("/proc/thread-self").expect("a thread"))
    }

    /// As the kernel has it now; exact for a thread that rests.
    pub fn scheduled(&self) -> Scheduled {
        let text = fs::read_to_string(self.0.join("schedstat")).expect("the scheduler's statistics");
        let mut times = text.split_whitespace().map(|time| Duration::from_nanos(time.parse().expect("a time")));
        let mut time = || times.next().expect("a time");
        Scheduled { ran: time(), waited: time() }
    }
}
