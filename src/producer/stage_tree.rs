//! A tree becomes a copy in the snapshot: linked where unchanged, never torn in silence.
//!
//! A file that changes while it is copied is copied again; one that will not hold still is kept as
//! last read and told of. So is the tree as a whole: see [`again`]. A database is told by its magic and copied as [`crate::base::sqlite`] says; its
//! sidecars are left out, since the copy is whole without them. What can't be read is skipped and told of;
//! a snapshot directory that can't be written ends the snapshot.
//!
//! Both sides are reached from open directories. A copy's owner, mode and attributes are those of what was
//! opened, and no copy is made through another: a name in the snapshot that is a link leads nowhere.

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
use super::copy_file::{Original, dress};
use super::error::SourceError;
use super::snapshot_path::below;
use super::staged_files::{FileStamp, StagedFiles};
use crate::base::database_names::{DatabaseNames, Journals, Roots};
use crate::base::openat::{Dir, Meta, PrivateDir};
use crate::base::walk::{Filter, Found, Walked, exchanged, walk};
use crate::format::index::Skipped;

pub(super) use self::take::{EntryFailure, FileCopy, plain};

pub(super) const ATTEMPTS: u32 = 3;
pub(super) const PAUSE: Duration = Duration::from_millis(30);
/// Before the last copy of what moves in a tree, so that a burst of changes may end.
const PAUSE_OF_TREE: Duration = Duration::from_millis(450);
const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// What to copy where.
pub(super) struct Job<'a> {
    pub root: &'a Dir,
    pub filter: &'a Filter,
    /// The snapshot in the making.
    pub snapshot: &'a Dir,
    /// Where the copy will be in it. Its parent exists.
    pub copy: &'a OsStr,
    /// The copy's place in the snapshot, for what is told.
    pub to: &'a str,
    pub record: &'a StagedFiles,
    /// Where other names of its databases may be.
    pub roots: &'a Roots,
    /// How long to wait for the locks of databases, all together.
    pub lock_timeout: Duration,
}

#[derive(Default)]
pub(super) struct Staged {
    pub looks: Vec<(Vec<u8>, FileStamp)>,
    /// Whatever calls itself a database, to be checked: paths below the copy.
    pub databases: Vec<Vec<u8>>,
    pub files: u64,
    pub bytes: u64,
    pub skipped: Vec<Skipped>,
    pub notes: BTreeSet<String>,
    seen: SeenEntries,
    /// Databases that were copied, by path.
    known: HashMap<Vec<u8>, CopiedDatabase>,
    /// The directories of the copy, in the walk's order. They get their metadata last: filling them changes it,
    /// and takes more rights than it may leave.
    directories: Vec<(Vec<u8>, Meta)>,
    /// What was not as the walk before saw it.
    moved: BTreeSet<Vec<u8>>,
    /// Why no more of it could be copied again.
    cause: Option<SourceError>,
}

impl Staged {
    fn skip(&mut self, job: &Job<'_>, rel: &[u8], reason: String) {
        let path = job.shown(rel);
        self.skipped.push(Skipped { path, reason });
    }
}

/// A database, as it was when it was copied.
#[derive(Clone, Default)]
struct CopiedDatabase {
    journals: Journals,
    logs: [Option<EntryStamp>; 2],
    /// The name by which it was read, if that is another one.
    alias: Option<Vec<u8>>,
}

/// A name of a file with several names, which was copied when it looked so.
#[derive(Clone)]
struct CopiedName {
    rel: Vec<u8>,
    look: FileStamp,
}

impl Job<'_> {
    /// What messages call `rel`.
    fn shown(&self, rel: &[u8]) -> String {
        match rel {
            b"" => self.to.to_owned(),
            rel => format!("{}/{}", self.to, String::from_utf8_lossy(rel)),
        }
    }

    /// The place of `rel`'s copy in the snapshot.
    fn copy_of(&self, rel: &[u8]) -> OsString {
        match rel {
            b"" => self.copy.to_owned(),
            rel => below(self.copy, rel),
        }
    }

    /// Makes a directory of the copy, unless something of another source is in it already.
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

/// Copies the tree until it was in one state while it was copied. After the last attempt, what moved is reported.
pub(super) fn stage(job: &Job<'_>) -> Result<Staged, SourceError> {
    let aside = OnceCell::new();
    let first = pass(job, None, false, &aside)?;
    let mut staged = again::settle(job, first, &aside);
    if let Some(aside) = aside.into_inner() {
        let removed = aside.remove();
        removed.map_err(job.cannot_write(job.copy))?;
    }
    finish(job, &mut staged)?;
    Ok(staged)
}

/// Walks the tree once. Copies what `earlier` has not or, without `may_copy`, only looks for it.
fn pass(
    job: &Job<'_>,
    earlier: Option<&Staged>,
    may_copy: bool,
    aside: &OnceCell<PrivateDir>,
) -> Result<Staged, SourceError> {
    let mut stager = Stager::new(job, earlier, may_copy, aside);
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

struct Stager<'a> {
    job: &'a Job<'a>,
    /// Of the walk before this one, whose copy is there.
    earlier: Option<Earlier<'a>>,
    started: SystemTime,
    staged: Staged,
    /// Files with several names that were copied, by device and inode: the first name; of a database, the first
    /// for each state of its journals.
    links: HashMap<(u64, u64), Vec<CopiedName>>,
    names: DatabaseNames,
    /// The time that is left for waiting for databases' locks.
    patience: Duration,
}

impl<'a> Stager<'a> {
    fn new(
        job: &'a Job<'a>,
        earlier: Option<&'a Staged>,
        may_copy: bool,
        aside: &'a OnceCell<PrivateDir>,
    ) -> Self {
        let mut staged = Staged::default();
        if let Some(earlier) = earlier {
            staged.notes.clone_from(&earlier.notes);
        }
        Self {
            job,
            earlier: earlier.map(|earlier| Earlier::new(earlier, may_copy, aside)),
            started: SystemTime::now(),
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

    fn root(&mut self, meta: Meta) -> Result<(), SourceError> {
        if self.earlier.is_none() {
            let made = self.job.make_dir(self.job.copy);
            made.map_err(self.job.cannot_write(self.job.copy))?;
        }
        self.staged.directories.push((Vec::new(), meta));
        Ok(())
    }

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

    fn end(mut self) -> Result<Staged, SourceError> {
        if self.earlier.is_some() {
            self.end_again();
        }
        Ok(self.staged)
    }
}

/// Gives the directories of the copy their metadata.
fn finish(job: &Job<'_>, staged: &mut Staged) -> Result<(), SourceError> {
    for (rel, meta) in std::mem::take(&mut staged.directories).into_iter().rev() {
        let copy = job.copy_of(&rel);
        let original = original_of_dir(job, staged, &rel, meta);
        let dressed = job.snapshot.sub(&copy);
        let dressed = dressed.and_then(|dir| dress(&dir, &original, true, &mut staged.notes));
        dressed.map_err(job.cannot_write(&copy))?;
    }
    Ok(())
}

/// The directory as the walk saw it; without its extended attributes if another has its name by now.
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
