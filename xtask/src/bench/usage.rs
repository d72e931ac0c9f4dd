//! What a proxy's own processes cost, as the kernel accounts for it.

use std::fs;
use std::io;

/// CPU time in nanoseconds of a process, its threads and its children.
pub(super) fn cpu_nanoseconds(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for pid in family(pid)? {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // Time on the CPU, time waiting for it, and how often: `sched-stats.rst` of the kernel.
            let schedstat = fs::read_to_string(path.join("schedstat"))?;
            sum += first_number(&schedstat)?;
        }
    }
    Ok(sum)
}

/// Memory in bytes that a process and its children hold, shared pages divided among who shares them.
pub(super) fn memory_bytes(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for pid in family(pid)? {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        sum += first_number(kib)? * 1024;
    }
    Ok(sum)
}

fn first_number(text: &str) -> io::Result<u64> {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.parse().map_err(|_| io::Error::other(format!("no number: {text:?}")))
}

fn family(pid: u32) -> io::Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    Ok([pid].into_iter().chain(children).collect())
}
