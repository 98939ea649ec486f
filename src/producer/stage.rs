//! A tree becomes a copy in the snapshot: linked where unchanged, never torn in silence.
//!
//! A file that changes while it is copied is copied again; one that will not hold still is kept as
//! last read and told of. So is the tree as a whole: see [`again`]. A database is told by its magic and copied as [`crate::sqlite`] says; its
//! sidecars are left out, since the copy is whole without them. What can't be read is skipped and told of;
//! a snapshot directory that can't be written ends the snapshot.
//!
//! Both sides are reached from open directories. A copy's owner, mode and attributes are those of what was
//! opened, and no copy is made through another: a name in the snapshot that is a link leads nowhere.

mod again;
mod content;
mod names;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime};

use self::again::Seen;
use super::SourceError;
use super::copy::{CopyError, Original, copy_content, dress, dress_entry};
use super::record::{Look, Record};
use super::validate::{below, head, is_called_database};
use crate::database_names::{DatabaseNames, Journals, Roots};
use crate::index::Skipped;
use crate::openat::{Dir, Kind, Meta};
use crate::sqlite;
use crate::walk::{Filter, Found, Walked, exchanged, walk};

pub(super) const ATTEMPTS: u32 = 3;
pub(super) const PAUSE: Duration = Duration::from_millis(30);
/// Between two copies of a tree.
const PAUSE_OF_TREE: Duration = Duration::from_millis(150);
/// The copy that an attempt made, while the next one is made.
const BEFORE: &str = ".attempt-before";
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
    pub record: &'a Record,
    /// Where other names of its databases may be.
    pub roots: &'a Roots,
    /// How long to wait for the locks of databases, all together.
    pub lock_timeout: Duration,
}

#[derive(Default)]
pub(super) struct Staged {
    pub looks: Vec<(Vec<u8>, Look)>,
    /// Whatever calls itself a database, to be checked: paths below the copy.
    pub databases: Vec<Vec<u8>>,
    pub files: u64,
    pub bytes: u64,
    pub skipped: Vec<Skipped>,
    pub notes: BTreeSet<String>,
    seen: Seen,
}

/// Copies the tree until it was in one state while it was copied. After the last attempt, what moved is reported.
pub(super) fn stage(job: &Job<'_>) -> Result<Staged, SourceError> {
    let mut staged = stage_once(job, job.record)?;
    for attempt in 1..=ATTEMPTS {
        let mut moved = staged.seen.moved(job.root, job.filter)?;
        if moved.is_empty() {
            break;
        }
        if attempt == ATTEMPTS {
            // What changed while it was copied is reported on its own.
            let path = |rel: &[u8]| format!("{}/{}", job.to, String::from_utf8_lossy(rel));
            moved.retain(|rel| staged.skipped.iter().all(|one| one.path != path(rel)));
            if moved.is_empty() {
                break;
            }
            let path = job.to.to_owned();
            let reason = again::reason(&moved, attempt);
            staged.skipped.push(Skipped { path, reason });
            break;
        }
        std::thread::sleep(PAUSE_OF_TREE * attempt);
        staged = stage_again(job, staged)?;
    }
    Ok(staged)
}

/// Copies the tree anew, and links what did not move from the attempt before, which is removed.
fn stage_again(job: &Job<'_>, before: Staged) -> Result<Staged, SourceError> {
    let failed = |source| SourceError::Io {
        what: "write the snapshot's copy",
        path: job.snapshot.path_of(job.copy),
        source,
    };
    let snapshot = job.snapshot;
    let copies = snapshot
        .rename(job.copy, snapshot, BEFORE)
        .and_then(|()| snapshot.sub(BEFORE));
    let record = Record::of(copies.map_err(failed)?, before.looks);
    let staged = stage_once(job, &record)?;
    snapshot.remove_tree(BEFORE).map_err(failed)?;
    Ok(staged)
}

fn stage_once(job: &Job<'_>, record: &Record) -> Result<Staged, SourceError> {
    let mut stager = Stager {
        job,
        record,
        started: SystemTime::now(),
        staged: Staged::default(),
        links: HashMap::new(),
        databases: HashMap::new(),
        names: DatabaseNames::new(job.roots.clone()),
        directories: Vec::new(),
        patience: job.lock_timeout,
    };
    let root_meta = Meta::of_fd(job.root).map_err(|source| SourceError::Io {
        what: "read",
        path: job.root.path().to_owned(),
        source,
    })?;
    let walk = walk(job.root, job.filter).map_err(SourceError::Walk)?;
    stager.directory(b"", root_meta)?;
    for walked in walk {
        match walked {
            Walked::Found(found) => stager.take(&found)?,
            Walked::Skipped(skipped) => stager.skip(skipped.path.as_bytes(), skipped.reason),
            Walked::Note(note) => drop(stager.staged.notes.insert(note)),
        }
    }
    stager.finish()
}

struct Stager<'a> {
    job: &'a Job<'a>,
    /// Of copies that may be linked.
    record: &'a Record,
    started: SystemTime,
    staged: Staged,
    /// Files with several names that were copied, by device and inode: the first name; of a database, the first
    /// for each state of its journals.
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
    /// Databases, by path, with the journals that they were copied with.
    databases: HashMap<Vec<u8>, Journals>,
    names: DatabaseNames,
    /// Their metadata is given to the copies last, since filling them changes it.
    directories: Vec<(Vec<u8>, Meta)>,
    /// The time that is left for waiting for databases' locks.
    patience: Duration,
}

/// How a file fared.
pub(super) enum Outcome {
    /// As it was at one moment, when it looked so.
    Whole(Original),
    /// A database's content as of one moment, which no look of its file identifies.
    BackedUp(Original),
    /// It changed during every attempt.
    Torn(Original),
}

impl Outcome {
    pub fn original(&self) -> &Original {
        let (Self::Whole(original) | Self::BackedUp(original) | Self::Torn(original)) = self;
        original
    }
}

/// Why a file is not in the snapshot, or why there is no snapshot.
pub(super) enum Failure {
    Skip(String),
    End(io::Error),
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(e) => Self::Skip(e.to_string()),
            // A path that is too long only in the copy's place is a matter of this one file.
            CopyError::Destination(e) if e.kind() == io::ErrorKind::InvalidFilename => {
                Self::Skip(e.to_string())
            }
            CopyError::Destination(e) => Self::End(e),
        }
    }
}

fn destination(e: io::Error) -> Failure {
    CopyError::Destination(e).into()
}

fn source(e: io::Error) -> Failure {
    CopyError::Source(e).into()
}

impl Stager<'_> {
    fn skip(&mut self, rel: &[u8], reason: String) {
        let path = match rel {
            b"" => self.job.to.to_owned(),
            rel => format!("{}/{}", self.job.to, String::from_utf8_lossy(rel)),
        };
        self.staged.skipped.push(Skipped { path, reason });
    }

    /// The place of `rel`'s copy in the snapshot.
    fn copy_of(&self, rel: &[u8]) -> OsString {
        match rel {
            b"" => self.job.copy.to_owned(),
            rel => below(self.job.copy, rel),
        }
    }

    fn end(&self, copy: &OsStr) -> impl FnOnce(io::Error) -> SourceError + use<> {
        let path = self.job.snapshot.path_of(copy);
        move |source| SourceError::Io {
            what: "write the snapshot's copy",
            path,
            source,
        }
    }

    fn directory(&mut self, rel: &[u8], meta: Meta) -> Result<(), SourceError> {
        let copy = self.copy_of(rel);
        let snapshot = self.job.snapshot;
        let made = match snapshot.make_dir(&copy, 0o700) {
            // Another source has put something into it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => snapshot.sub(&copy),
            other => other,
        };
        match made {
            Err(e) if e.kind() == io::ErrorKind::InvalidFilename && !rel.is_empty() => {
                self.skip(rel, e.to_string());
                return Ok(());
            }
            other => drop(other.map_err(self.end(&copy))?),
        }
        self.directories.push((rel.to_vec(), meta));
        Ok(())
    }

    fn take(&mut self, found: &Found) -> Result<(), SourceError> {
        let copy = self.copy_of(&found.rel);
        self.staged.seen.note(&found.rel, &found.meta);
        let taken = match found.meta.kind() {
            Kind::Dir => return self.directory(&found.rel, found.meta),
            Kind::File => self.file(found, &copy),
            _ => self.special(found, &copy),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Failure::Skip(reason)) => {
                let _ = self.job.snapshot.remove_file(&copy);
                self.staged.databases.pop_if(|rel| *rel == found.rel);
                self.skip(&found.rel, reason);
                Ok(())
            }
            Err(Failure::End(e)) => Err(self.end(&copy)(e)),
        }
    }

    fn special(&mut self, found: &Found, copy: &OsStr) -> Result<(), Failure> {
        let pin = found.root.pin(found.rel()).map_err(source)?;
        let (meta, snapshot) = (pin.meta(), self.job.snapshot);
        match meta.kind() {
            Kind::Symlink => {
                let text = pin.read_link().map_err(source)?;
                snapshot.symlink(&text, copy).map_err(destination)?;
            }
            kind @ (Kind::Fifo | Kind::BlockDevice | Kind::CharDevice) => {
                let rdev = meta.rdev();
                let device = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
                match snapshot.make_node(copy, kind, Some(device)) {
                    // Making device nodes is root's.
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                        let reason = "a device can be copied by root only";
                        return Err(Failure::Skip(reason.to_owned()));
                    }
                    other => other.map_err(destination)?,
                }
            }
            _ => return Err(source(exchanged())),
        }
        let notes = &mut self.staged.notes;
        dress_entry(snapshot, copy, &Original::of_pin(&pin), notes).map_err(destination)
    }

    fn file(&mut self, found: &Found, copy: &OsStr) -> Result<(), Failure> {
        if self.is_sidecar(&found.rel) {
            return Ok(());
        }
        if let Some(first) = self.first_name(found) {
            let snapshot = self.job.snapshot;
            match snapshot.link(self.copy_of(&first), snapshot, copy) {
                Ok(()) => {
                    if let Some(journals) = self.databases.get(&first).copied() {
                        self.databases.insert(found.rel.clone(), journals);
                    }
                    self.staged.files += 1;
                    return Ok(());
                }
                Err(error) => drop(self.staged.notes.insert(format!(
                    "hard links of one file are copies of it in the snapshot: {error}"
                ))),
            }
        }
        let meta = match self.link_unchanged(found, copy) {
            true => found.meta,
            false => {
                let outcome = self.content(found, copy)?;
                self.settle(found, copy, &outcome)?;
                outcome.original().meta
            }
        };
        self.staged.files += 1;
        self.staged.bytes += meta.len();
        if meta.nlink() > 1 {
            let names = self.links.entry(meta.id()).or_default();
            names.push(found.rel.clone());
        }
        Ok(())
    }

    fn is_sidecar(&self, rel: &[u8]) -> bool {
        SIDECARS.iter().any(|ending| {
            let base = rel.strip_suffix(*ending);
            base.is_some_and(|base| self.databases.contains_key(base))
        })
    }

    fn link_unchanged(&mut self, found: &Found, copy: &OsStr) -> bool {
        let Some(earlier) = self.record.copies_with(&found.rel, &found.meta) else {
            return false;
        };
        // Through its log a database changes while its file does not.
        let is_database = head(earlier, found.rel()).is_ok_and(|head| sqlite::is_sqlite(&head));
        let mut is_in_file_alone = || {
            let home = self.home(found);
            home.is_ok_and(|home| !home.has_live_journal && home.unseen == 0)
        };
        if is_database && !is_in_file_alone() {
            return false;
        }
        if earlier.link(found.rel(), self.job.snapshot, copy).is_err() {
            return false;
        }
        if is_database {
            self.databases
                .insert(found.rel.clone(), Journals::default());
        }
        if is_database || is_called_database(&found.rel) {
            self.staged.databases.push(found.rel.clone());
        }
        let look = Look::of(&found.meta);
        self.staged.looks.push((found.rel.clone(), look));
        true
    }

    /// Gives the copy its metadata and notes what is to be remembered or told.
    fn settle(&mut self, found: &Found, copy: &OsStr, outcome: &Outcome) -> Result<(), Failure> {
        // A backup has its own time: the file's would not tell two contents of a log apart.
        let with_mtime = !matches!(outcome, Outcome::BackedUp(_));
        let (file, _) = self.job.snapshot.open_file(copy).map_err(destination)?;
        let notes = &mut self.staged.notes;
        dress(&file, outcome.original(), with_mtime, notes).map_err(destination)?;
        match outcome {
            Outcome::Whole(original) => {
                let look = Look::of(&original.meta);
                if !look.is_racy(self.started) {
                    self.staged.looks.push((found.rel.clone(), look));
                }
            }
            Outcome::Torn(_) => {
                let reason = format!(
                    "changed during each of {ATTEMPTS} attempts to copy it; kept as last read"
                );
                self.skip(&found.rel, reason);
            }
            Outcome::BackedUp(_) => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Staged, SourceError> {
        for (rel, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            let copy = self.copy_of(&rel);
            let original = self.original_of_dir(&rel, meta);
            let dressed = self.job.snapshot.sub(&copy).and_then(|dir| {
                let notes = &mut self.staged.notes;
                dress(&dir, &original, true, notes)
            });
            dressed.map_err(self.end(&copy))?;
        }
        self.staged.seen.note_databases(self.databases.keys());
        Ok(self.staged)
    }

    /// The directory as the walk saw it; without its extended attributes if another has its name by now.
    fn original_of_dir(&mut self, rel: &[u8], meta: Meta) -> Original {
        match self.job.root.pin(OsStr::from_bytes(rel)) {
            Ok(pin) if pin.meta().is_same(&meta) => Original {
                meta,
                ..Original::of_pin(&pin)
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Original::bare(meta),
            _ => {
                let reason = format!("stored without its extended attributes: {}", exchanged());
                self.skip(rel, reason);
                Original::bare(meta)
            }
        }
    }
}

/// Copies until the file looked the same before and after, and `still` agrees.
pub(super) fn plain(
    open: impl Fn() -> io::Result<(File, Meta)>,
    snapshot: &Dir,
    copy: &OsStr,
    still: impl Fn() -> bool,
) -> Result<Outcome, Failure> {
    let mut attempt = 1;
    loop {
        let (file, before) = open().map_err(source)?;
        copy_content(&file, snapshot, copy)?;
        let original = Original::of_fd(&file).map_err(source)?;
        if Look::of(&before) == Look::of(&original.meta) && still() {
            return Ok(Outcome::Whole(original));
        }
        if attempt == ATTEMPTS {
            return Ok(Outcome::Torn(original));
        }
        attempt += 1;
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests;
