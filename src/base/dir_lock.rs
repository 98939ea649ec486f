//! A lock on a directory, for files of which several processes write a few.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long to wait for another process, which holds the lock for some milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The lock of a directory, until it is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _dir: File,
}

impl DirLock {
    /// Takes the lock that only one process can hold.
    pub fn exclusive(dir: &Path) -> io::Result<Self> {
        Self::take(dir, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock that readers can share.
    pub fn shared(dir: &Path) -> io::Result<Self> {
        Self::take(dir, FlockOperation::NonBlockingLockShared)
    }

    /// Each lock opens the directory itself, so that the threads of one process exclude each other.
    fn take(dir: &Path, operation: FlockOperation) -> io::Result<Self> {
        let dir = File::open(dir)?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match flock(&dir, operation) {
                Ok(()) => return Ok(Self { _dir: dir }),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(io::Error::other("another process holds its lock"));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
