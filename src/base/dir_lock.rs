//! Locks for files of which several processes write a few.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long to wait for another process, which holds the lock for some milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The locked file of a directory. Other users cannot open it, so they cannot hold its lock.
const LOCK: &str = ".lock";

/// The lock of a directory, until it is dropped or the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock that only one process can hold.
    pub fn exclusive(dir: &Path) -> io::Result<Self> {
        let file = open(dir)?;
        lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { _file: file })
    }

    /// Takes the lock that readers can share. Where nothing can be written, or a writer does not
    /// end, there is none (`None`): a reader then may see a file that is being written.
    pub fn shared(dir: &Path) -> io::Result<Option<Self>> {
        dir.read_dir()?;
        let Ok(file) = open(dir) else {
            return Ok(None);
        };
        let locked = lock(&file, FlockOperation::NonBlockingLockShared);
        Ok(locked.ok().map(|()| Self { _file: file }))
    }
}

/// Each lock opens the file itself, so that the threads of one process exclude each other.
fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(dir.join(LOCK))
}

/// Locks an open file for this process alone. Fails if another one holds its lock for seconds.
pub fn lock_file(file: &File) -> io::Result<()> {
    lock(file, FlockOperation::NonBlockingLockExclusive)
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
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
