//! The state directory: catalog, spool, cache and scratch, held by one process at a time.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::AgentError;
use crate::catalog::Catalog;
use crate::spool::Spool;

/// The opened state directory; nobody else has it while this lives.
#[derive(Debug)]
pub struct State {
    pub dir: PathBuf,
    pub catalog: Catalog,
    pub spool: Spool,
    _lock: File,
}

impl State {
    /// Opens or makes `dir` (0700) and locks it. A lock dies with its process, however that ends.
    pub fn open(dir: &Path) -> Result<Self, AgentError> {
        let failed = |operation, path: &Path| {
            let path = path.display().to_string();
            move |source| AgentError::State {
                operation,
                path,
                source,
            }
        };
        if !dir.is_dir() {
            fs::create_dir_all(dir).map_err(failed("make the state directory", dir))?;
            fs::set_permissions(dir, Permissions::from_mode(0o700))
                .map_err(failed("protect the state directory", dir))?;
        }
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(AgentError::Locked(dir.display().to_string()));
            }
            Err(errno) => return Err(failed("lock", &lock_path)(io::Error::from(errno))),
        }
        crate::fs::clear_abandoned(dir);
        Ok(Self {
            dir: dir.to_path_buf(),
            catalog: Catalog::open(&dir.join("catalog.db"))?,
            spool: Spool::open(&dir.join("spool"))?,
            _lock: lock,
        })
    }

    /// Closes the catalog, so that its file is all there is of it; gives the directory, and its lock.
    pub(super) fn close(self) -> Result<(PathBuf, File), AgentError> {
        self.catalog.close()?;
        Ok((self.dir, self._lock))
    }
}
