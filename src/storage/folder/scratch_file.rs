//! Files of running puts, and the removal of those that killed puts left.
//!
//! A put that fails removes its file. A put that is killed leaves it, unlocked, and
//! [`clear_abandoned`] removes it when the target is opened. A put of another process keeps its
//! file locked (`flock`) until the rename, and a minute of grace covers the time between creating
//! and locking, so no running put is disturbed. Without working locks only the age decides, and it
//! is a day.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::root::open_root;
use super::steps::{self, FolderEntry};
use crate::base::openat::{Dir, Meta};
use crate::storage::contract::Body;
use crate::storage::meter::TransferAttempt;
use crate::storage::throttle::{self, Throttle};

const SCRATCH: &str = ".tmp";
const ABANDONED_AGE: Duration = Duration::from_secs(60);
/// The age on a file system without locks.
const ABANDONED_AGE_UNLOCKED: Duration = Duration::from_secs(24 * 3600);

/// Removes the files of killed puts in every host's folder that this user may read.
pub(super) fn clear_abandoned(root: &Path) -> io::Result<()> {
    let root = open_root(root)?;
    let found = steps::read_dir(&root)?.into_iter();
    let folders = found.filter(|(_, held)| *held == FolderEntry::Folder);
    // The hosts' folders, and the root itself for objects right below it.
    for host in folders.map(|(name, _)| name).chain([String::new()]) {
        // This user may not be allowed to read or clear another host's folder.
        let Ok(scratch) = root.sub(&host).and_then(|host| host.sub(SCRATCH)) else {
            continue;
        };
        for (name, _) in steps::read_dir(&scratch).unwrap_or_default() {
            let opened = scratch.open_file(&name);
            if opened.is_ok_and(|(file, _)| is_abandoned(&file)) {
                let _ = steps::remove(&scratch, &name);
            }
        }
    }
    Ok(())
}

/// Whether no process writes the file any more.
fn is_abandoned(file: &File) -> bool {
    let modified = file.metadata().and_then(|meta| meta.modified());
    let Some(age) = modified.ok().and_then(|time| time.elapsed().ok()) else {
        return false;
    };
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => age >= ABANDONED_AGE,
        Err(Errno::WOULDBLOCK) => false,
        Err(_) => age >= ABANDONED_AGE_UNLOCKED,
    }
}

/// A file in a host's scratch folder. Dropped before it is renamed, it is removed.
pub(super) struct ScratchFile {
    pub dir: Dir,
    pub name: String,
    pub file: File,
    /// Whether the file has its own name now.
    pub renamed: bool,
}

impl ScratchFile {
    /// Creates and locks a file in the scratch folder of `host`.
    pub(super) fn create(host: &Dir) -> io::Result<Self> {
        let dir = host.make_dirs(SCRATCH, 0o777)?;
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("put-{}", crate::base::ids::hex(&random));
        let file = steps::create_file(&dir, &name)?;
        // Best effort: see the module's text about file systems without locks.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(Self {
            dir,
            name,
            file,
            renamed: false,
        })
    }

    /// Writes `body` durably, counted by `attempt`.
    pub(super) fn fill(
        &mut self,
        body: &Body,
        limit: Option<&Throttle>,
        attempt: &TransferAttempt,
    ) -> io::Result<()> {
        match body {
            Body::Bytes(bytes) => {
                throttle::copy(&mut bytes.as_ref(), &mut self.file, limit, attempt)?;
            }
            Body::File(path) | Body::Shared(path) => {
                let (mut source, meta) = open_source(path)?;
                let copied = throttle::copy(&mut source, &mut self.file, limit, attempt)?;
                if copied != meta.len() {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} changed while it was read", path.display()),
                    ));
                }
            }
        }
        self.file.sync_all()
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = steps::remove(&self.dir, &self.name);
        }
    }
}

/// Opens the file of a body.
pub(super) fn open_source(path: &Path) -> io::Result<(File, Meta)> {
    let (dir, name) = Dir::open_parent(path)?;
    dir.open_file(&name)
}
