//! A directory for files on their way through this machine, removed when its owner is dropped.
//!
//! Only this user can read it (0700), and no other user can rename it. If its process was killed,
//! the next process removes it: the owner holds a lock on it that ends with the process.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::openat::{Dir, PrivateDir};

/// Age from which an unlocked directory counts as abandoned: between making and locking it is
/// unlocked.
const ABANDONED_AGE: Duration = Duration::from_secs(60);

/// A temporary directory of this process.
pub(crate) struct ScratchDir {
    private: Arc<PrivateDir>,
    path: PathBuf,
}

/// A temporary directory that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a temporary directory in {}", parent.display())]
pub(crate) struct ScratchDirError {
    parent: PathBuf,
    #[source]
    source: io::Error,
}

impl ScratchDir {
    /// Makes a directory for the job `verb` in `parent` [default: the system's directory for
    /// temporary files], and removes the abandoned ones of that job there.
    pub(crate) fn make(verb: &str, parent: Option<&Path>) -> Result<Self, ScratchDirError> {
        Self::make_removing(verb, parent, ABANDONED_AGE)
    }

    /// Does the same, and also removes directories that were abandoned a moment ago. A process that
    /// loses its new directory to this, because it has not locked it yet, makes another one.
    pub(crate) fn make_after_killed(
        verb: &str,
        parent: Option<&Path>,
    ) -> Result<Self, ScratchDirError> {
        Self::make_removing(verb, parent, Duration::ZERO)
    }

    fn make_removing(
        verb: &str,
        parent: Option<&Path>,
        age: Duration,
    ) -> Result<Self, ScratchDirError> {
        let temporary = std::env::temp_dir();
        let parent = parent.unwrap_or(&temporary);
        let made = Self::make_in(parent, &format!("sealift-{verb}-").into(), age);
        made.map_err(|source| ScratchDirError {
            parent: parent.to_owned(),
            source,
        })
    }

    fn make_in(parent: &Path, prefix: &OsString, age: Duration) -> io::Result<Self> {
        let resolved = Dir::resolve(parent)?;
        if resolved.other.is_some() || !resolved.missing.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(exposed) = resolved.exposed {
            let text = format!(
                "other users can rename what is in {}, and could exchange decrypted files there",
                exposed.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        PrivateDir::remove_abandoned(&resolved.dir, prefix, age);
        let private = PrivateDir::make(&resolved.dir, prefix, |_| ())?;
        let path = resolved.dir.path_of(private.name());
        Ok(Self {
            private: Arc::new(private),
            path,
        })
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its open descriptor, for work that must not follow paths.
    pub(crate) fn private(&self) -> &Arc<PrivateDir> {
        &self.private
    }
}
