//! Flushes to disk while archives still arrive, so that little is left to wait for at the end.
//!
//! The system reports a failed write only once, to the first flush after it. So the result of these
//! flushes counts.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::base::openat::Dir;

/// Bytes that are written between two flushes.
const FLUSH_BYTES: u64 = 256 << 20;

/// A thread that flushes the file system whenever much was written.
pub(super) struct EarlyFlush {
    /// Bytes written so far.
    written_bytes: AtomicU64,
    /// Wakes the thread. `None`: it must end.
    wake: Mutex<Option<SyncSender<()>>>,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl EarlyFlush {
    /// Starts the thread for the file system of `root`.
    pub(super) fn start(root: &Dir) -> io::Result<Self> {
        let root = root.clone();
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("flush".to_owned());
        let thread = thread.spawn(move || {
            let mut outcome = Ok(());
            for () in woken {
                outcome = outcome.and(root.sync_file_system());
            }
            outcome
        })?;
        Ok(Self {
            written_bytes: AtomicU64::new(0),
            wake: Mutex::new(Some(wake)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the thread after the flush that is under way. Returns an error if any flush failed.
    pub(super) fn end(&self) -> io::Result<()> {
        *lock(&self.wake) = None;
        let thread = lock(&self.thread).take();
        let stopped = |_| Err(io::Error::other("the flushing thread stopped"));
        thread.map_or(Ok(()), |thread| thread.join().unwrap_or_else(stopped))
    }

    /// Counts written bytes, and wakes the thread when enough of them came together.
    pub(super) fn written(&self, bytes: u64) {
        let before = self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / FLUSH_BYTES != (before + bytes) / FLUSH_BYTES {
            // If the thread is still flushing, the wake-up waits for the next flush.
            let _ = lock(&self.wake).as_ref().map(|wake| wake.try_send(()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
