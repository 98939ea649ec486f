//! A directory for files on their way through this machine, gone with its command.
//!
//! It is for us alone (0700), in a directory in which no other user can rename it. One whose command was
//! killed is removed by the next: its owner holds a lock on it, which ends with the process.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::failure::Failure;
use crate::base::openat::{Dir, PrivateDir};

/// Between making and locking one is not locked.
const ABANDONED_AGE: Duration = Duration::from_secs(60);

pub struct Scratch {
    private: Arc<PrivateDir>,
    path: PathBuf,
}

impl Scratch {
    /// For the command `verb`, in `parent` [default: the system's directory for temporary files].
    pub fn make(verb: &str, parent: Option<&Path>) -> Result<Self, Failure> {
        let temporary = std::env::temp_dir();
        let parent = parent.unwrap_or(&temporary);
        Self::make_in(parent, &format!("sealift-{verb}-").into()).map_err(|error| {
            let parent = parent.display();
            Failure::from_error(format!(
                "cannot make a temporary directory in {parent}: {error}"
            ))
            .hint("give one with --scratch that is yours")
        })
    }

    fn make_in(parent: &Path, prefix: &OsString) -> io::Result<Self> {
        let resolved = Dir::resolve(parent)?;
        if resolved.other.is_some() || !resolved.missing.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(exposed) = resolved.exposed {
            let what = format!(
                "other users can rename what is in {}, and could exchange decrypted files there",
                exposed.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        PrivateDir::remove_abandoned(&resolved.dir, prefix, ABANDONED_AGE);
        let private = PrivateDir::make(&resolved.dir, prefix, |_| ())?;
        let path = resolved.dir.path_of(private.name());
        Ok(Self {
            private: Arc::new(private),
            path,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn private(&self) -> &Arc<PrivateDir> {
        &self.private
    }
}
