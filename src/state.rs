//! The state directory: catalog, spool, files cache and scratch, used by one process at a time.

pub mod catalog;
pub mod figures;
pub mod history;
mod lock_holder;
pub mod machine;
pub mod pins;
pub mod restores;
pub mod run_file;
pub mod run_log;
pub mod serve_lock;
pub mod spool;
pub mod staged_snapshot;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

pub use crate::state::lock_holder::{HoldingRun, LockHolder};

use crate::state::catalog::{Catalog, CatalogError};
use crate::state::spool::{Spool, SpoolError};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A step on the directory itself failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// A verb phrase that the path completes.
        operation: &'static str,
        /// The directory, or a file in it.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process holds the lock of this directory.
    #[error("{0}")]
    Locked(Box<LockHolder>),
    /// A restore in place has begun and not ended.
    #[error("{0}")]
    RestoreOpen(restores::OpenRestore),
    /// The catalog cannot be opened.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// The open state directory. No other process can open it until this is dropped.
#[derive(Debug)]
pub struct State {
    /// The directory.
    pub dir: PathBuf,
    /// What this host remembers of its archives and snapshots.
    pub catalog: Catalog,
    /// The sealed objects that are not on every target yet.
    pub spool: Spool,
    /// Lines for the operator: other users can read or change the directory.
    pub warnings: Vec<String>,
    _lock: File,
}

impl State {
    /// Opens or creates `dir`, closes it to other users and locks it. The kernel releases the lock
    /// when the process ends, however that happens. Fails while a restore in place is open.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let locked = StateLock::take(dir)?;
        let open = restores::open_restore(dir);
        let open = open.map_err(failed("read the restores in", dir))?;
        match open {
            Some(open) => Err(StateError::RestoreOpen(open)),
            None => locked.into_state(),
        }
    }

    /// Closes the catalog, so that its one file is complete, and returns the directory and its
    /// lock.
    pub(crate) fn close(self) -> Result<(PathBuf, File), CatalogError> {
        self.catalog.close()?;
        Ok((self.dir, self._lock))
    }
}

/// The locked state directory, whose catalog is not opened: a restore in place must work without
/// it.
#[derive(Debug)]
pub struct StateLock {
    dir: PathBuf,
    /// Lines for the operator: other users can read or change the directory.
    pub warnings: Vec<String>,
    lock: File,
}

impl StateLock {
    /// Creates `dir` if it is missing, closes it to other users and locks it.
    pub fn take(dir: &Path) -> Result<Self, StateError> {
        crate::base::fs::create_private_dir(dir)
            .map_err(failed("make the state directory", dir))?;
        let warnings = close_to_others(dir).map_err(failed("protect the state directory", dir))?;
        let lock = lock(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            warnings,
            lock,
        })
    }

    /// Opens the catalog and the spool.
    fn into_state(self) -> Result<State, StateError> {
        crate::base::fs::clear_abandoned(&self.dir);
        Ok(State {
            catalog: Catalog::open(&self.dir.join("catalog.db"))?,
            spool: Spool::open(&self.dir.join("spool"))?,
            dir: self.dir,
            warnings: self.warnings,
            _lock: self.lock,
        })
    }
}

/// Locks the state directory `dir`, which exists, until the returned file is closed.
pub fn lock(dir: &Path) -> Result<File, StateError> {
    let path = dir.join("lock");
    // A link that another user put there is not followed, and a FIFO is not waited for.
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .map_err(failed("open", &path))?;
    match lock_soon(&lock) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(StateError::Locked(Box::new(LockHolder::of(dir))))
        }
        Err(errno) => Err(failed("lock", &path)(io::Error::from(errno))),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.display().to_string();
    move |source| StateError::Io {
        operation,
        path,
        source,
    }
}

/// Takes the lock. `status` probes it, so one that is held is tried again for an instant.
fn lock_soon(lock: &File) -> rustix::io::Result<()> {
    const TRIES: usize = 5;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    flock(lock, FlockOperation::NonBlockingLockExclusive)
}

/// The permission bits of group and others.
const OTHERS: u32 = 0o077;
/// How the names begin that Sealift uses in the directory.
const OWN_NAMES: &[&str] = &[
    "catalog.",
    "figures.",
    "history.",
    "logs",
    "last-snapshot.",
    "lock",
    "machine-id",
    "pins",
    "restores",
    "run.",
    "serve.",
    "scratch",
    "snapshots",
    "spool",
    "stage",
];

/// Removes the rights of group and others from `dir` and from Sealift's entries in it: these
/// contain names, hashes and times of everything that is backed up, and a lock with which others
/// could stop backups. Returns a warning if the directory stays open.
fn close_to_others(dir: &Path) -> io::Result<Vec<String>> {
    let user = rustix::process::geteuid().as_raw();
    let opened = match File::open(dir) {
        // Taking the lock will fail, with a message that names it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(Vec::new()),
        other => other?,
    };
    let found = opened.metadata()?;
    if found.uid() == user && found.mode() & OTHERS != 0 {
        // A file system without modes refuses this or does nothing; the second `stat` shows that.
        let _ = opened.set_permissions(Permissions::from_mode(found.mode() & 0o700));
    }
    let now = opened.metadata()?;
    let open = match (now.uid() == user || now.uid() == 0, now.mode() & OTHERS) {
        (true, 0) => None,
        (true, _) => Some(format!(
            "is open to other users (mode {:04o})",
            now.mode() & 0o7777
        )),
        (false, _) => Some(format!("belongs to uid {}", now.uid())),
    };
    if let Some(open) = open {
        let text = format!(
            "the state directory {} {open}: other users can see what is backed up, and stop backups; give it \
             to the user who runs sealift, with mode 0700",
            dir.display()
        );
        return Ok(vec![text]);
    }
    // From here on other users can neither enter the directory nor exchange its entries. A file
    // with a second name is left alone: it may belong to another directory, too.
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_own = |own: &&str| name.as_encoded_bytes().starts_with(own.as_bytes());
        if !OWN_NAMES.iter().any(is_own) {
            continue;
        }
        let meta = entry.metadata()?;
        let is_ours = meta.uid() == user && (meta.is_dir() || meta.is_file() && meta.nlink() == 1);
        if is_ours && meta.mode() & OTHERS != 0 {
            let closed = Permissions::from_mode(meta.mode() & 0o700);
            fs::set_permissions(entry.path(), closed)?;
        }
    }
    Ok(Vec::new())
}
