//! A directory for files on their way through this machine, gone with its command.
//!
//! One whose command was killed is removed by the next: its owner holds a lock on it, which dies with the process.
//! A minute is left between making and locking.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use tempfile::TempDir;

use super::failure::Failure;
use crate::restore::remove_tree;

const ABANDONED_AGE: Duration = Duration::from_secs(60);

pub struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// For the command `verb`, in `parent` [default: the system's directory for temporary files].
    pub fn make(verb: &str, parent: Option<&Path>) -> Result<Self, Failure> {
        let temporary = std::env::temp_dir();
        let parent = parent.unwrap_or(&temporary);
        Self::make_in(parent, &format!("sealift-{verb}-")).map_err(|error| {
            Failure::from_error(format!("cannot make a temporary directory: {error}"))
                .hint("give one with --scratch")
        })
    }

    fn make_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        remove_abandoned(parent, prefix);
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        let lock = open(dir.path())?;
        // Where the file system knows no locks the next command finds none to take, and removes nothing.
        let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { dir, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn open(dir: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(dir)
}

/// What cannot be removed stays: it is in nobody's way.
fn remove_abandoned(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let Ok(dir) = open(&entry.path()) else {
            continue;
        };
        let is_old = dir.metadata().is_ok_and(|meta| is_old_and_ours(&meta));
        if is_old && flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = remove_tree(&entry.path());
        }
    }
}

fn is_old_and_ours(meta: &Metadata) -> bool {
    let age = meta.modified().ok().and_then(|time| time.elapsed().ok());
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    is_ours && age.is_some_and(|age| age >= ABANDONED_AGE)
}
