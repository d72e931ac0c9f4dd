//! Lines on their way to standard error: whoever logs never waits for whoever reads.
//!
//! A line goes into a bounded queue; a thread of its own writes them, many with one system call. If nobody reads, the
//! queue fills, and further lines are lost and counted: mail goes on, and signals are heard. The thread begins only when
//! told to, since capabilities belong to threads and must be dropped before the first; until then lines wait.
//!
//! Here a line gets its last form, too: nothing in it steers a terminal, the journal gets a priority, a terminal colours.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

use super::events::{self, EventKind};
use super::show::{Escape, escaped};

/// Lines that may wait.
const LINES_MAX: usize = 4096;
/// Bytes that are written at once, about.
const BATCH: usize = 64 * 1024;
/// How long the last lines may take when the gateway ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines end up, and what form they have there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// A file or a pipe.
    Plain,
    /// Somebody looks: levels have colours.
    Terminal,
    /// The systemd journal: each line begins with its priority (sd-daemon(3)), and the time is the journal's own.
    Journal,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it is to be written; then it is dropped.
    Flush(SyncSender<()>),
}

/// Makes lines into messages. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Message>,
    target: Target,
    escape: Escape,
    lost: Arc<AtomicU64>,
}

/// The queue's other end.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: SyncSender<Message>,
    /// Until the thread has it.
    waiting: Mutex<Option<Receiver<Message>>>,
    lost: Arc<AtomicU64>,
}

/// One line that is being made.
#[derive(Debug)]
pub(super) struct Line<'a> {
    lines: &'a Lines,
    level: Level,
}

/// A queue for lines of this form.
pub(super) fn queue(target: Target, escape: Escape) -> (Lines, Outlet) {
    let (sender, receiver) = sync_channel(LINES_MAX);
    let lost = Arc::<AtomicU64>::default();
    let outlet = Outlet { queue: sender.clone(), waiting: Mutex::new(Some(receiver)), lost: lost.clone() };
    (Lines { queue: sender, target, escape, lost }, outlet)
}

impl Outlet {
    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Begins to write, in a thread of its own.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(&self, out: impl Write + Send + 'static) -> io::Result<()> {
        self.start_telling(out, tell)
    }

    /// `tell` hears how many lines were lost.
    fn start_telling(
        &self,
        mut out: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let Some(receiver) = self.waiting().take() else { return Ok(()) };
        let lost = self.lost.clone();
        let write = move || write_lines(&receiver, &mut out, &lost, tell);
        thread::Builder::new().name("log".to_owned()).spawn(write).map(drop)
    }

    /// Waits until what was logged so far is written, but not for ever. Without a thread this one writes.
    pub(super) fn flush(&self, mut out: impl Write) {
        if let Some(receiver) = self.waiting().take() {
            for message in receiver.try_iter() {
                if let Message::Line(line) = message {
                    // Whoever ends has nobody left to tell.
                    let _ = out.write_all(&line);
                }
            }
            return;
        }
        let (answer, written) = sync_channel(0);
        if self.queue.try_send(Message::Flush(answer)).is_ok() {
            // It is dropped when everything is written; if that takes too long, nobody reads.
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(LAST_LINES);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<Receiver<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of lines that were lost.
fn tell(lines: u64) {
    warn!(lines, "log lines were lost: whoever reads standard error did not keep up");
    events::emit(EventKind::Log, "log", format_args!("{lines} lines were lost"));
}

fn write_lines(queue: &Receiver<Message>, out: &mut impl Write, lost: &AtomicU64, tell: impl Fn(u64)) {
    let mut batch = Vec::new();
    let mut told = 0;
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        let mut lines = 0;
        let mut flushed = Vec::new();
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Message::Flush(answer) => flushed.push(answer),
            }
            next = if batch.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        // A full disk or a closed pipe: what was to be said there cannot be said.
        let written = out.write_all(&batch).and_then(|()| out.flush()).is_ok();
        if !written {
            lost.fetch_add(lines, Ordering::Relaxed);
        }
        batch.clear();
        drop(flushed);
        let now = lost.load(Ordering::Relaxed);
        // Where a line has just come through: otherwise what is told would be lost and told of, without end.
        if now > told && written && lines > 0 {
            tell(now - told);
            told = now;
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, level: *metadata.level() }
    }
}

impl Write for Line<'_> {
    /// Takes a whole line at once: that is how it comes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Lines { queue, target, escape, lost } = self.lines;
        let text = String::from_utf8_lossy(line);
        let shaped = shape(&text, self.level, *target, *escape);
        if queue.try_send(Message::Line(shaped)).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line's last form, with its end.
fn shape(line: &str, level: Level, target: Target, escape: Escape) -> Vec<u8> {
    let shown = escaped(line.trim_end_matches('\n'), escape);
    let mut shaped = Vec::with_capacity(shown.len() + 16);
    match target {
        Target::Plain => shaped.extend_from_slice(shown.as_bytes()),
        Target::Journal => {
            shaped.extend_from_slice(priority(level));
            shaped.extend_from_slice(shown.as_bytes());
        }
        Target::Terminal => match shown.split_once(level.as_str()) {
            Some((before, after)) => {
                let colour = colour(level);
                shaped.extend_from_slice(format!("\x1b[2m{before}\x1b[0m{colour}{level}\x1b[0m{after}").as_bytes());
            }
            None => shaped.extend_from_slice(shown.as_bytes()),
        },
    }
    shaped.push(b'\n');
    shaped
}

/// As sd-daemon(3) has it.
fn priority(level: Level) -> &'static [u8] {
    match level {
        Level::ERROR => b"<3>",
        Level::WARN => b"<4>",
        Level::INFO => b"<6>",
        _ => b"<7>",
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        _ => "\x1b[35m",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// Somebody who reads nothing until told to, and then everything.
    struct Stuck {
        gate: Receiver<()>,
        written: std::sync::mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Open for good when the other end is gone.
            let _ = self.gate.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(lines: &Lines, text: &str) {
        Line { lines, level: Level::INFO }.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn whoever_logs_never_waits_and_what_is_lost_is_counted() {
        let (lines, outlet) = queue(Target::Plain, Escape::Braces);
        let ((open, gate), (written, read)) = (channel(), channel());
        outlet.start(Stuck { gate, written }).unwrap();
        for index in 0..3 * LINES_MAX {
            log(&lines, &format!("line {index}\n"));
        }
        // What the thread holds itself has left the queue, and how much that is depends on when it came by.
        let lost = outlet.lost();
        assert!(lost > 0);
        drop(open);
        outlet.flush(io::sink());
        drop((lines, outlet));
        let text: Vec<u8> = read.iter().flatten().collect();
        let count = String::from_utf8(text).unwrap().lines().filter(|line| line.starts_with("line ")).count();
        assert_eq!(u64::try_from(count).unwrap() + lost, u64::try_from(3 * LINES_MAX).unwrap());
    }

    #[test]
    fn lines_from_before_the_thread_are_not_lost() {
        let (lines, outlet) = queue(Target::Plain, Escape::Braces);
        log(&lines, "early\n");
        let mut out = Vec::new();
        outlet.flush(&mut out);
        assert_eq!(out, b"early\n");
    }

    #[test]
    fn a_disk_that_is_full_loses_lines_and_nothing_else() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (lines, outlet) = queue(Target::Plain, Escape::Braces);
        outlet.start(Full).unwrap();
        log(&lines, "one\n");
        outlet.flush(io::sink());
        assert_eq!(outlet.lost(), 1);
    }

    /// Whether a reader is gone for a while or for good: what tells of lost lines is a line itself.
    #[test]
    fn lost_lines_are_told_of_by_a_line_that_comes_through() {
        /// Fails so many times.
        struct Gone(u32);
        impl Write for Gone {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0 == 0 {
                    return Ok(bytes.len());
                }
                self.0 -= 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (failures, lost, expected) in [(0, 0, vec![]), (1, 1, vec![1]), (2, 2, vec![2]), (u32::MAX, 4, vec![])] {
            let (lines, outlet) = queue(Target::Plain, Escape::Braces);
            let ((tell, told), telling) = (channel(), lines.clone());
            let tell = move |count| {
                log(&telling, "lost\n");
                tell.send(count).unwrap();
            };
            outlet.start_telling(Gone(failures), tell).unwrap();
            for _ in 0..4 {
                log(&lines, "line\n");
                outlet.flush(io::sink());
            }
            assert_eq!((outlet.lost(), told.try_iter().collect::<Vec<u64>>()), (lost, expected), "{failures} failures");
        }
    }

    #[test]
    fn a_line_has_its_targets_form_and_steers_nothing() {
        let line = "2026-01-01T00:00:00Z  WARN a\u{1b}[2J\u{202e}b\n";
        for (target, escape, expected) in [
            (Target::Plain, Escape::Braces, "2026-01-01T00:00:00Z  WARN a\\u{1b}[2J\\u{202e}b\n"),
            (Target::Journal, Escape::Json, "<4>2026-01-01T00:00:00Z  WARN a\\u001b[2J\\u202eb\n"),
            (
                Target::Terminal,
                Escape::Braces,
                "\x1b[2m2026-01-01T00:00:00Z  \x1b[0m\x1b[33mWARN\x1b[0m a\\u{1b}[2J\\u{202e}b\n",
            ),
        ] {
            assert_eq!(String::from_utf8(shape(line, Level::WARN, target, escape)).unwrap(), expected);
        }
    }
}
