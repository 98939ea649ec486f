//! Writes the events of a run as JSON Lines to a file descriptor (`--events-fd`); docs/events.md
//! describes them.
//!
//! A thread of its own writes, and takes the lines from a short queue. So a reader that is slow or
//! has gone never blocks the run: of the progress only the newest line waits, and when too many
//! other lines wait, further ones are dropped. The report, which is the last line, is always
//! queued, and the run waits a moment for it. A line is written to its end before the next begins.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::SecondsFormat;
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use serde_json::{Value, json};

use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::progress::Stage;

/// Most lines that wait.
const MOST_LINES: usize = 1024;
/// Time to wait at the end for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two signs of life on standard output.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// Pause before another try on a pipe that is full and does not block.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Why a descriptor cannot take events.
#[derive(Debug, thiserror::Error)]
pub(super) enum EventsFdError {
    /// It has another use.
    #[error("--events-fd {0}: descriptors 0, 1 and 2 are standard input, output and error")]
    Standard(RawFd),
    /// It is not open.
    #[error("--events-fd {0}: this descriptor is not open")]
    NotOpen(RawFd),
    /// It cannot be written to.
    #[error("--events-fd {0}: this descriptor is open for reading only")]
    ReadOnly(RawFd),
    /// The thread could not be started, or the descriptor could not be asked.
    #[error("--events-fd {fd}: the events cannot be written")]
    System {
        /// The descriptor.
        fd: RawFd,
        /// The system's error.
        source: io::Error,
    },
}

/// Takes events, and writes them when the reader is ready.
#[derive(Debug)]
pub(super) struct EventSink {
    queue: Mutex<EventQueue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct EventQueue {
    lines: VecDeque<EventLine>,
    /// Bytes that were written, to see whether the reader takes any.
    written: u64,
    /// Whether the thread is within a line.
    is_writing: bool,
    /// Whether the last line is queued.
    is_closed: bool,
    /// Whether the reader has gone.
    is_dead: bool,
}

#[derive(Debug)]
struct EventLine {
    text: String,
    is_progress: bool,
}

impl EventSink {
    /// Takes over the descriptor, which the caller of this process opened.
    pub(super) fn open(fd: RawFd) -> Result<Arc<Self>, EventsFdError> {
        let file = take_over(fd)?;
        let sink = Arc::new(Self::new());
        let writer = Arc::clone(&sink);
        let named = std::thread::Builder::new().name("events".to_owned());
        let started = named.spawn(move || writer.write_all(&file));
        started.map_err(|source| EventsFdError::System { fd, source })?;
        Ok(sink)
    }

    /// Writes to standard output, for a caller on another machine.
    pub(super) fn on_stdout() -> Result<Arc<Self>, EventsFdError> {
        let failed = |source| EventsFdError::System {
            fd: libc::STDOUT_FILENO,
            source,
        };
        let file = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
        let sink = Arc::new(Self::new());
        let (writer, living) = (Arc::clone(&sink), Arc::clone(&sink));
        let spawn = |work: Box<dyn FnOnce() + Send>| {
            let named = std::thread::Builder::new().name("events".to_owned());
            named.spawn(work).map(drop).map_err(failed)
        };
        spawn(Box::new(move || writer.write_all(&file)))?;
        spawn(Box::new(move || {
            while living.is_open() {
                std::thread::sleep(ALIVE_EVERY);
                living.push(json!({ "event": "alive" }), false);
            }
        }))?;
        Ok(sink)
    }

    fn is_open(&self) -> bool {
        let queue = self.lock();
        !(queue.is_closed || queue.is_dead)
    }

    fn new() -> Self {
        Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A stage of the run begins.
    pub(super) fn stage(&self, stage: Stage, subject: Option<&str>) {
        let mut event = json!({ "event": "stage", "stage": stage });
        if let Some(subject) = subject {
            event[subject_of(stage)] = subject.into();
        }
        self.push(event, false);
    }

    /// The figures of a transfer changed. Replaces figures that still wait.
    pub(super) fn progress(&self, mut figures: Value) {
        figures["event"] = "progress".into();
        self.push(figures, true);
    }

    /// The snapshot in `dir` is validated, and not on any target yet.
    pub(super) fn snapshot(&self, stamp: Stamp, dir: &Path, metadata: &Value) {
        let event = json!({
            "event": "snapshot",
            "stamp": stamp,
            "path": dir.to_string_lossy(),
            "metadata": metadata,
        });
        self.push(event, false);
    }

    /// Something that needs no attention.
    pub(super) fn note(&self, text: &str) {
        self.push(json!({ "event": "note", "text": text }), false);
    }

    /// Something that may be wrong.
    pub(super) fn warning(&self, text: &str) {
        self.push(json!({ "event": "warning", "text": text }), false);
    }

    /// A target does not answer, or its requests fail; they are retried for `left_seconds`, or the
    /// first attempt goes on.
    pub(super) fn retrying(&self, target: &str, cause: &str, left_seconds: Option<u64>) {
        let event = json!({
            "event": "retrying",
            "target": target,
            "cause": cause,
            "left_seconds": left_seconds,
        });
        self.push(event, false);
    }

    /// This run waits for the files of a restore by push.
    pub(super) fn ready(&self, exchange: u64, host: &str) {
        let version = env!("CARGO_PKG_VERSION");
        let event =
            json!({ "event": "ready", "exchange": exchange, "host": host, "version": version });
        self.push(event, false);
    }

    /// The files of a restore by push have arrived and are verified.
    pub(super) fn received(&self) {
        self.push(json!({ "event": "received" }), false);
    }

    /// The data that the command would print with `--json`.
    pub(super) fn verdict(&self, verdict: Value) {
        self.push(json!({ "event": "verdict", "verdict": verdict }), false);
    }

    /// Queues the last event, the report, and waits for it to be written as long as the reader
    /// takes anything.
    pub(super) fn end(&self, report: Value) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        queue.is_closed = true;
        queue.lines.retain(|line| !line.is_progress);
        let mut event = json!({ "event": "report" });
        event["report"] = report;
        queue.lines.push_back(line(event, false));
        self.changed.notify_all();
        let (mut written, mut since) = (queue.written, Instant::now());
        while !(queue.is_dead || queue.lines.is_empty() && !queue.is_writing) {
            if queue.written != written {
                (written, since) = (queue.written, Instant::now());
            }
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, event: Value, is_progress: bool) {
        let mut queue = self.lock();
        if queue.is_closed || queue.is_dead {
            return;
        }
        if is_progress {
            queue.lines.retain(|line| !line.is_progress);
        }
        if queue.lines.len() < MOST_LINES {
            queue.lines.push_back(line(event, is_progress));
            self.changed.notify_all();
        }
    }

    /// Writes lines until the last one, or until the reader has gone.
    fn write_all(&self, file: &File) {
        loop {
            let mut queue = self.lock();
            let text = loop {
                if let Some(line) = queue.lines.pop_front() {
                    queue.is_writing = true;
                    break line.text;
                }
                if queue.is_closed {
                    return;
                }
                let waited = self.changed.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            let written = self.write_line(file, text.as_bytes());
            let mut queue = self.lock();
            queue.is_writing = false;
            queue.is_dead = written.is_err();
            self.changed.notify_all();
            if queue.is_dead {
                return;
            }
        }
    }

    fn write_line(&self, mut file: &File, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.lock().written += written as u64;
                    self.changed.notify_all();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, EventQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of the field that says what a stage is about.
pub(super) fn subject_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Producing
        | Stage::Validating
        | Stage::Staging
        | Stage::KeepingOld
        | Stage::PuttingInPlace
        | Stage::RollingBack => "source",
        Stage::InspectingTargets | Stage::Publishing | Stage::Pruning | Stage::Trying => "target",
        _ => "host",
    }
}

fn line(mut event: Value, is_progress: bool) -> EventLine {
    event["t"] = clock::now()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
        .into();
    EventLine {
        text: format!("{event}\n"),
        is_progress,
    }
}

/// Returns the descriptor as a file that no child inherits.
#[allow(
    unsafe_code,
    reason = "a descriptor that the caller hands over is a bare number"
)]
fn take_over(fd: RawFd) -> Result<File, EventsFdError> {
    if (0..=2).contains(&fd) {
        return Err(EventsFdError::Standard(fd));
    }
    // SAFETY: `fcntl` with F_GETFD takes any number.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(EventsFdError::NotOpen(fd));
    }
    // SAFETY: it is open, this process has opened nothing yet, and `--events-fd` gives it to us.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let failed = |error: rustix::io::Errno| EventsFdError::System {
        fd,
        source: error.into(),
    };
    let flags = rustix::fs::fcntl_getfl(&file).map_err(failed)?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(EventsFdError::ReadOnly(fd));
    }
    rustix::io::fcntl_setfd(&file, FdFlags::CLOEXEC).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    /// Returns a sink, the thread that writes it, and the end of the pipe to read from.
    fn piped() -> (Arc<EventSink>, std::thread::JoinHandle<()>, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        let sink = Arc::new(EventSink::new());
        let shared = Arc::clone(&sink);
        let thread = std::thread::spawn(move || shared.write_all(&file));
        (sink, thread, reader)
    }

    fn events(reader: io::PipeReader) -> Vec<Value> {
        let lines = BufReader::new(reader).lines();
        let parsed = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        parsed.collect()
    }

    #[test]
    fn a_reader_that_never_reads_blocks_nothing_and_later_finds_whole_lines() {
        let (sink, thread, reader) = piped();
        let began = Instant::now();
        let text = "x".repeat(500);
        for number in 0..3000 {
            sink.note(&format!("{number} {text}"));
            sink.progress(json!({ "bytes": number }));
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        sink.end(json!({ "kind": "backup" }));
        assert!(began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());
        // Now it reads: each line is whole, the order is kept, and the report is the last.
        let events = events(reader);
        thread.join().unwrap();
        let is = |event: &Value, kind: &str| event["event"] == kind;
        assert!(is(events.last().unwrap(), "report"));
        assert_eq!(events.iter().filter(|one| is(one, "report")).count(), 1);
        assert!(events.len() < 3000, "{}", events.len());
        let notes = events.iter().filter(|one| is(one, "note"));
        let numbers = notes.map(|one| one["text"].as_str().unwrap().split(' ').next());
        let numbers: Vec<u32> = numbers.map(|text| text.unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers.len() > 100, "{numbers:?}");
    }

    #[test]
    fn a_reader_that_has_gone_costs_nothing() {
        let (sink, thread, reader) = piped();
        drop(reader);
        sink.note("first");
        thread.join().unwrap();
        let began = Instant::now();
        sink.note("second");
        sink.end(json!({}));
        assert!(began.elapsed() < PATIENCE / 4);
    }

    #[test]
    fn only_the_newest_progress_waits() {
        let sink = EventSink::new();
        for bytes in 0..10 {
            sink.progress(json!({ "bytes": bytes }));
        }
        sink.stage(Stage::Producing, Some("db"));
        let queue = sink.lock();
        let lines: Vec<Value> = queue
            .lines
            .iter()
            .map(|line| serde_json::from_str(&line.text).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0]["event"], &lines[0]["bytes"]),
            (&json!("progress"), &json!(9))
        );
        assert_eq!(lines[1]["source"], "db");
    }
}
