//! A running program's output as something to wait for.

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long anything is waited for. Generous: it is only spent when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Text {
    text: String,
    ended: bool,
}

/// What a program has printed so far.
#[derive(Debug, Clone, Default)]
pub struct Log {
    shared: Arc<(Mutex<Text>, Condvar)>,
}

impl Log {
    /// Waits for a line that has all these parts, and returns it.
    ///
    /// # Panics
    /// If it does not come in time, or the program ends without it.
    pub fn wait_for(&self, parts: &[&str]) -> String {
        self.wait_until(&format!("a line with {parts:?}"), |text| {
            let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        })
    }

    /// Waits for a line that is exactly this.
    ///
    /// # Panics
    /// As [`Log::wait_for`].
    pub fn wait_for_line(&self, line: &str) {
        self.wait_until(&format!("the line `{line}`"), |text| text.lines().any(|other| other == line).then_some(()));
    }

    /// Waits for a line that has all these parts and names this address, however it is written.
    ///
    /// # Panics
    /// As [`Log::wait_for`].
    pub fn wait_for_address(&self, parts: &[&str], address: IpAddr) -> String {
        self.wait_until(&format!("a line with {parts:?} and {address}"), |text| {
            let fits = |line: &&str| parts.iter().all(|part| line.contains(part)) && names(line, address);
            text.lines().find(fits).map(str::to_owned)
        })
    }

    /// Waits until so many lines have all these parts.
    ///
    /// # Panics
    /// As [`Log::wait_for`].
    pub fn wait_for_count(&self, parts: &[&str], count: usize) {
        self.wait_until(&format!("{count} lines with {parts:?}"), |text| {
            let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
            (lines.count() >= count).then_some(())
        });
    }

    /// Waits until the program, and all that it started, will print no more.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_end(&self) {
        let (text, changed) = &*self.shared;
        let text = text.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(text, PATIENCE, |text| !text.ended);
        assert!(waited.unwrap_or_else(PoisonError::into_inner).0.ended, "it does not end");
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    fn wait_until<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let (text, changed) = &*self.shared;
        let deadline = Instant::now() + PATIENCE;
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&text.text) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let why = if text.ended { "the program ended" } else { "it did not come in time" };
            assert!(!text.ended && !left.is_zero(), "{what}: {why}");
            text = changed.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads to the end in a thread of its own.
    fn follow(&self, mut source: impl Read + Send + 'static) -> JoinHandle<()> {
        let shared = self.shared.clone();
        thread::spawn(move || {
            let (text, changed) = &*shared;
            let mut buffer = [0; 4096];
            loop {
                let count = source.read(&mut buffer).unwrap_or(0);
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                text.ended = count == 0;
                changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        })
    }
}

/// Zeros may be left out or not, and `=`, blanks or brackets stand around.
fn names(line: &str, address: IpAddr) -> bool {
    line.split(['=', ' ', '[', ']', '(', ')', ',']).any(|word| word.parse() == Ok(address))
}

/// A program that is killed, with all its children, when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Takes over a child whose standard output is piped and carries its standard error too. What it said is shown, under
    /// this name, if the test fails.
    pub fn new(name: &str, mut child: Child) -> Self {
        let log = Log::default();
        let reader = child.stdout.take().map(|stdout| log.follow(stdout));
        Self { name: name.to_owned(), child, log, reader }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn wait(&mut self) -> ExitStatus {
        self.log.wait_for_end();
        self.child.wait().expect("a child")
    }

    /// Sends this signal to it and to all that it has started; who starts others goes before them.
    pub fn signal_all(&self, signal: &str) {
        let mut known = Vec::new();
        loop {
            let all = with_children(self.pid());
            let new: Vec<_> = all.iter().filter(|pid| !known.contains(*pid)).map(u32::to_string).collect();
            if new.is_empty() {
                return;
            }
            // One that has ended meanwhile needs none.
            let _ = Command::new("kill").arg(signal).args(new).stderr(Stdio::null()).status();
            known = all;
        }
    }

    /// The first of all that it has started under this name.
    pub fn descendant(&self, name: &str) -> Option<u32> {
        let is_it = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        with_children(self.pid()).into_iter().find(is_it)
    }

    /// Kills it, with all that it has started.
    pub fn kill(&mut self) {
        // If it cannot be killed it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its output ends when its last child is gone: only then may its folder and its network be taken away.
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// What it has printed.
    pub fn log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {} had said:\n{}", self.name, self.log.text());
        }
        self.kill();
    }
}

/// Waits until this process has ended, whoever's child it is.
///
/// # Panics
/// If that takes too long.
pub fn wait_for_end_of(process: u64) {
    let stat = format!("/proc/{process}/stat");
    let runs =
        || fs::read_to_string(&stat).is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'));
    let deadline = Instant::now() + PATIENCE;
    while runs() {
        assert!(Instant::now() < deadline, "process {process} does not end");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process and all that it and its children have started, in that order.
fn with_children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = entries.filter_map(|entry| parent(&entry)).collect();
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    all
}

/// A process and its parent.
fn parent(entry: &fs::DirEntry) -> Option<(u32, u32)> {
    let pid = entry.file_name().to_str()?.parse().ok()?;
    let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
    let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
    Some((pid, parent))
}
