//! Copies a tree into the snapshot. Unchanged files are linked; a torn copy is always reported.
//!
//! - A file that changes while it is copied is copied again. If it changes each time, it is kept as
//!   last read and reported. The same goes for the tree as a whole: see [`again`].
//! - A database is recognised by its magic and copied as [`crate::base::sqlite`] says. Its sidecars
//!   are left out, since the copy is complete without them.
//! - A file that cannot be read is skipped and reported. If the snapshot directory cannot be
//!   written, the snapshot fails.
//!
//! Both sides are reached from open directories. A copy gets the owner, mode and attributes of the
//! file that was opened, and no copy is made through another: a symlink in the snapshot is never
//! followed.

mod again;
mod content;
mod earlier;
mod names;
mod seen;
mod take;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use self::earlier::Earlier;
use self::seen::{EntryStamp, SeenEntries};
use super::copy_file::{CopyMtime, Original, dress};
use super::copy_meter::CopyMeter;
use super::error::SourceError;
use super::snapshot_path::below;
use super::staged_files::{FileStamp, StagedFiles};
use crate::base::clock;
use crate::base::database_names::{DatabaseNames, Journals, Roots};
use crate::base::openat::{Dir, Meta, PrivateDir};
use crate::base::walk::{Filter, Found, Walked, exchanged, walk};
use crate::format::index::Skipped;

pub(super) use self::take::{EntryFailure, FileCopy, plain};

/// Attempts to copy a file, and a tree, in one state.
pub(super) const ATTEMPTS: u32 = 3;
/// Time between two attempts to copy a file.
pub(super) const PAUSE: Duration = Duration::from_millis(30);
/// Time before the last attempt to copy a tree, so that a burst of changes may end.
const PAUSE_OF_TREE: Duration = Duration::from_millis(450);
/// The endings of the files that SQLite keeps beside a database.
const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// The task of copying one tree.
pub(super) struct Job<'a> {
    /// The tree.
    pub root: &'a Dir,
    /// Selects the tree's entries.
    pub filter: &'a Filter,
    /// The directory of the snapshot in the making.
    pub snapshot: &'a Dir,
    /// The path of the copy in it. Its parent exists.
    pub copy: &'a OsStr,
    /// The copy's place in the snapshot, for messages.
    pub to: &'a str,
    /// The previous staging of the tree, whose copies may be linked to.
    pub previous: &'a StagedFiles,
    /// The directories in which other names of its databases may be.
    pub roots: &'a Roots,
    /// The time to wait for the locks of all its databases together.
    pub lock_timeout: Duration,
    /// Counts the bytes that are written.
    pub meter: &'a CopyMeter,
}

/// The outcome of copying a tree.
#[derive(Default)]
pub(super) struct Staged {
    /// The files that the next snapshot may link to, with their stamps, by path.
    pub file_stamps: Vec<(Vec<u8>, FileStamp)>,
    /// Paths, below the copy, of files that look like databases and are to be checked.
    pub databases: Vec<Vec<u8>>,
    /// Copied files.
    pub files: u64,
    /// Sum of their sizes; of a file with several names once.
    pub bytes: u64,
    /// Paths that could not be copied, or not well, and why.
    pub skipped: Vec<Skipped>,
    /// Remarks for the operator.
    pub notes: BTreeSet<String>,
    /// The entries of the last walk.
    seen: SeenEntries,
    /// Databases that were copied, by path.
    known: HashMap<Vec<u8>, CopiedDatabase>,
    /// The directories of the copy, in the walk's order. They get their metadata last: filling a
    /// directory changes its times, and may need rights that its mode does not give.
    directories: Vec<(Vec<u8>, Meta)>,
    /// Paths of the entries that differ from the previous walk.
    moved: BTreeSet<Vec<u8>>,
    /// The error that ended copying again. `None`: there was none.
    cause: Option<SourceError>,
}

impl Staged {
    fn skip(&mut self, job: &Job<'_>, rel: &[u8], reason: String) {
        let path = job.shown(rel);
        self.skipped.push(Skipped { path, reason });
    }
}

/// The journals of a database at the time of its copy.
#[derive(Clone, Default)]
struct CopiedDatabase {
    journals: Journals,
    /// The stamps of its logs, if they exist.
    logs: [Option<EntryStamp>; 2],
    /// The path by which it was read, if that is another of its names.
    alias: Option<Vec<u8>>,
}

/// A name of a file with several names, and the stamp of the file when it was copied.
#[derive(Clone)]
struct CopiedName {
    rel: Vec<u8>,
    look: FileStamp,
}

impl Job<'_> {
    /// Returns the path of `rel` in the snapshot, for messages.
    fn shown(&self, rel: &[u8]) -> String {
        match rel {
            b"" => self.to.to_owned(),
            rel => format!("{}/{}", self.to, String::from_utf8_lossy(rel)),
        }
    }

    /// Returns the path of `rel`'s copy in the snapshot's directory.
    fn copy_of(&self, rel: &[u8]) -> OsString {
        match rel {
            b"" => self.copy.to_owned(),
            rel => below(self.copy, rel),
        }
    }

    /// Makes a directory of the copy. One that another source has made is used.
    fn make_dir(&self, copy: &OsStr) -> io::Result<()> {
        match self.snapshot.make_dir(copy, 0o700) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.snapshot.sub(copy).map(drop),
            other => other.map(drop),
        }
    }

    fn cannot_write(&self, copy: &OsStr) -> impl FnOnce(io::Error) -> SourceError + use<> {
        let path = self.snapshot.path_of(copy);
        move |source| SourceError::Io {
            what: "write the snapshot's copy",
            path,
            source,
        }
    }
}

/// Copies the tree until a copy shows one state of it. After the last attempt, reports the entries
/// that changed.
pub(super) fn stage(job: &Job<'_>) -> Result<Staged, SourceError> {
    let aside = OnceCell::new();
    let first = pass(job, WalkKind::First, &aside)?;
    let mut staged = again::settle(job, first, &aside);
    if let Some(aside) = aside.into_inner() {
        let removed = aside.remove();
        removed.map_err(job.cannot_write(job.copy))?;
    }
    finish(job, &mut staged)?;
    Ok(staged)
}

/// What one walk of the tree does.
#[derive(Clone, Copy)]
enum WalkKind<'a> {
    /// It copies every entry.
    First,
    /// It copies the entries that are not as in this earlier walk.
    CopyChanged(&'a Staged),
    /// It only finds the entries that are not as in this earlier walk.
    FindChanged(&'a Staged),
}

/// Walks the tree once.
fn pass(
    job: &Job<'_>,
    kind: WalkKind<'_>,
    aside: &OnceCell<PrivateDir>,
) -> Result<Staged, SourceError> {
    let mut stager = Stager::new(job, kind, aside);
    let root_meta = Meta::of_fd(job.root).map_err(|source| SourceError::Io {
        what: "read",
        path: job.root.path().to_owned(),
        source,
    })?;
    let walk = walk(job.root, job.filter).map_err(SourceError::Walk)?;
    stager.root(root_meta)?;
    for walked in walk {
        stager.walked(walked)?;
    }
    stager.end()
}

/// One walk of the tree, which copies entries as it finds them.
struct Stager<'a> {
    job: &'a Job<'a>,
    /// The walk before this one, whose copy exists. `None`: this is the first.
    earlier: Option<Earlier<'a>>,
    started: SystemTime,
    staged: Staged,
    /// The copied files with several names, by device and inode: the first name. Of a database, the
    /// first name for each state of its journals.
    links: HashMap<(u64, u64), Vec<CopiedName>>,
    names: DatabaseNames,
    /// The time that is left to wait for databases' locks.
    patience: Duration,
}

impl<'a> Stager<'a> {
    fn new(job: &'a Job<'a>, kind: WalkKind<'a>, aside: &'a OnceCell<PrivateDir>) -> Self {
        let mut staged = Staged::default();
        let earlier = Earlier::of(kind, aside);
        if let Some(earlier) = &earlier {
            staged.notes.clone_from(&earlier.staged.notes);
        }
        Self {
            job,
            earlier,
            started: clock::of_files(),
            staged,
            links: HashMap::new(),
            names: DatabaseNames::new(job.roots.clone()),
            patience: job.lock_timeout,
        }
    }

    fn skip(&mut self, rel: &[u8], reason: String) {
        self.staged.skip(self.job, rel, reason);
    }

    fn copy_of(&self, rel: &[u8]) -> OsString {
        self.job.copy_of(rel)
    }

    /// Takes the tree's root.
    fn root(&mut self, meta: Meta) -> Result<(), SourceError> {
        if self.earlier.is_none() {
            let made = self.job.make_dir(self.job.copy);
            made.map_err(self.job.cannot_write(self.job.copy))?;
        }
        self.staged.directories.push((Vec::new(), meta));
        Ok(())
    }

    /// Takes one result of the walk.
    fn walked(&mut self, walked: Walked) -> Result<(), SourceError> {
        match walked {
            Walked::Found(found) if self.earlier.is_some() => self.take_again(&found),
            Walked::Found(found) => return self.take(&found),
            Walked::Skipped(skipped) => {
                if let Some(earlier) = &mut self.earlier {
                    earlier.note_unread(&skipped.path);
                }
                self.skip(skipped.path.as_bytes(), skipped.reason);
            }
            Walked::Note(note) => drop(self.staged.notes.insert(note)),
        }
        Ok(())
    }

    /// Copies an entry in the first walk.
    fn take(&mut self, found: &Found) -> Result<(), SourceError> {
        let (state, copy, mark) = (
            EntryStamp::of(&found.meta),
            self.copy_of(&found.rel),
            self.mark(),
        );
        let made = match found.meta.is_dir() {
            true => self.make_directory(found, &copy),
            false => self.make(found, &copy),
        };
        let made = match made {
            Ok(made) => Some(made),
            Err(EntryFailure::Skip(reason)) => {
                let _ = self.job.snapshot.remove_file(&copy);
                self.reset(mark);
                self.skip(&found.rel, reason);
                None
            }
            Err(EntryFailure::End(e)) => return Err(self.job.cannot_write(&copy)(e)),
        };
        self.note(&found.rel, state, mark, made.as_ref());
        Ok(())
    }

    /// Ends the walk.
    fn end(mut self) -> Result<Staged, SourceError> {
        if self.earlier.is_some() {
            self.end_again();
        }
        Ok(self.staged)
    }
}

/// Sets the metadata of the copied directories.
fn finish(job: &Job<'_>, staged: &mut Staged) -> Result<(), SourceError> {
    for (rel, meta) in std::mem::take(&mut staged.directories).into_iter().rev() {
        let copy = job.copy_of(&rel);
        let original = original_of_dir(job, staged, &rel, meta);
        let dressed = job.snapshot.sub(&copy);
        let dressed =
            dressed.and_then(|dir| dress(&dir, &original, CopyMtime::Original, &mut staged.notes));
        dressed.map_err(job.cannot_write(&copy))?;
    }
    Ok(())
}

/// Returns the metadata of a directory as the walk saw it, without extended attributes if another
/// directory has its name by now.
fn original_of_dir(job: &Job<'_>, staged: &mut Staged, rel: &[u8], meta: Meta) -> Original {
    match job.root.pin(OsStr::from_bytes(rel)) {
        Ok(pin) if pin.meta().is_same(&meta) => Original {
            meta,
            ..Original::of_pin(&pin)
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Original::bare(meta),
        _ => {
            let reason = format!("stored without its extended attributes: {}", exchanged());
            staged.skip(job, rel, reason);
            Original::bare(meta)
        }
    }
}

#[cfg(test)]
mod tests;
