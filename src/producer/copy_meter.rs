//! Counts the bytes that are written while a source is copied, for the display.
//!
//! Files that this process copies itself are counted buffer by buffer. A file that another process
//! writes in one go (the child that copies a database, a command) is looked at a few times a
//! second: its size is what was written. So the copying waits for nothing.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::base::openat::Dir;
use crate::base::progress::{Progress, ProgressEvent};

/// Time between two looks.
const TICK: Duration = Duration::from_millis(200);
/// No size is known.
const UNKNOWN: u64 = u64::MAX;

/// The bytes of the source that is being copied.
#[derive(Debug)]
pub(super) struct CopyMeter {
    copied: AtomicU64,
    /// The size of the original; [`UNKNOWN`] for a tree and a command.
    total: AtomicU64,
    /// The file that another process writes.
    growing: Mutex<Option<GrowingFile>>,
    is_over: AtomicBool,
}

#[derive(Debug)]
struct GrowingFile {
    dir: Dir,
    rel: OsString,
}

impl Default for CopyMeter {
    fn default() -> Self {
        Self {
            copied: AtomicU64::new(0),
            total: AtomicU64::new(UNKNOWN),
            growing: Mutex::new(None),
            is_over: AtomicBool::new(false),
        }
    }
}

impl CopyMeter {
    /// Begins to count the next source.
    pub(super) fn begin(&self) {
        *self.growing() = None;
        self.copied.store(0, Ordering::Relaxed);
        self.total.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Notes the size of the source.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that were written.
    pub(super) fn add(&self, bytes: u64) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts the file `rel` in `dir`, which another process writes, until the result is dropped.
    pub(super) fn watch(&self, dir: &Dir, rel: impl Into<OsString>) -> MeteredFile<'_> {
        *self.growing() = Some(GrowingFile {
            dir: dir.clone(),
            rel: rel.into(),
        });
        MeteredFile(self)
    }

    /// Reports to `progress` while `work` is done.
    pub(super) fn report_during<T>(&self, progress: &dyn Progress, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let named = thread::Builder::new().name("copy meter".to_owned());
            // Without the thread, the source's name is all that is shown.
            let ticker = named.spawn_scoped(scope, || self.tick(progress)).ok();
            let _ending = Ending {
                meter: self,
                ticker: ticker.map(|ticker| ticker.thread().clone()),
            };
            work()
        })
    }

    fn tick(&self, progress: &dyn Progress) {
        loop {
            thread::park_timeout(TICK);
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let total = self.total.load(Ordering::Relaxed);
            progress.report(&ProgressEvent::SourceCopied {
                bytes: self.bytes(),
                bytes_total: (total != UNKNOWN).then_some(total),
            });
        }
    }

    /// Returns the bytes that were written so far.
    fn bytes(&self) -> u64 {
        let growing = self.growing().as_ref().map_or(0, GrowingFile::bytes);
        self.copied.load(Ordering::Relaxed).saturating_add(growing)
    }

    fn growing(&self) -> MutexGuard<'_, Option<GrowingFile>> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GrowingFile {
    /// Returns its size; 0 before it exists.
    fn bytes(&self) -> u64 {
        self.dir.meta(&self.rel).map_or(0, |meta| meta.len())
    }
}

/// Ends the thread, also after a panic: otherwise its scope would wait for it.
struct Ending<'a> {
    meter: &'a CopyMeter,
    ticker: Option<Thread>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.meter.is_over.store(true, Ordering::Relaxed);
        if let Some(ticker) = &self.ticker {
            ticker.unpark();
        }
    }
}

/// A file that counts while another process writes it. Afterwards its bytes are copied ones.
pub(super) struct MeteredFile<'a>(&'a CopyMeter);

impl Drop for MeteredFile<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0.growing().take() {
            self.0.add(file.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<(u64, Option<u64>)>>);

    impl Progress for Seen {
        fn report(&self, event: &ProgressEvent<'_>) {
            if let ProgressEvent::SourceCopied { bytes, bytes_total } = event {
                self.0.lock().unwrap().push((*bytes, *bytes_total));
            }
        }
    }

    #[test]
    fn copied_bytes_and_a_growing_file_are_reported_while_the_work_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (meter, seen) = (CopyMeter::default(), Seen::default());
        meter.report_during(&seen, || {
            meter.begin();
            meter.expect(100);
            meter.add(10);
            let watched = meter.watch(&dir, "file");
            thread::sleep(TICK * 2);
            std::fs::write(temp.path().join("file"), [0; 40]).unwrap();
            thread::sleep(TICK * 2);
            drop(watched);
            meter.add(1);
            thread::sleep(TICK * 2);
            meter.begin();
            thread::sleep(TICK * 2);
        });
        let mut seen = seen.0.into_inner().unwrap();
        seen.dedup();
        let expected = [(10, Some(100)), (50, Some(100)), (51, Some(100)), (0, None)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_panic_does_not_wait_for_the_display() {
        let work = || CopyMeter::default().report_during(&Seen::default(), || panic!("work"));
        assert!(std::panic::catch_unwind(work).is_err());
    }
}
