//! A tree becomes a copy in the snapshot: linked where unchanged, never torn in silence.
//!
//! A file that changes while it is copied is copied again; one that will not hold still is kept as
//! last read and told of. A database is told by its magic and copied as [`crate::sqlite`] says; its
//! sidecars are left out, since the copy is whole without them. What can't be read is skipped and told of;
//! a snapshot directory that can't be written ends the snapshot.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::SourceError;
use super::copy::{CopyError, copy_content, copy_metadata, open_source};
use super::record::{Look, Record};
use crate::error::with_causes;
use crate::index::Skipped;
use crate::sqlite::{self, Place, SqliteError};
use crate::walk::{Filter, Found, Walked, walk};

pub(super) const ATTEMPTS: u32 = 3;
pub(super) const PAUSE: Duration = Duration::from_millis(30);
const SIDECARS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// What to copy where.
pub(super) struct Job<'a> {
    /// Canonical.
    pub root: &'a Path,
    pub filter: &'a Filter,
    /// Does not exist yet; its parent does.
    pub copy: &'a Path,
    /// The copy's place in the snapshot, for what is told.
    pub to: &'a str,
    pub record: &'a Record,
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
}

pub(super) fn stage(job: &Job<'_>) -> Result<Staged, SourceError> {
    let mut stager = Stager {
        job,
        started: SystemTime::now(),
        staged: Staged::default(),
        links: HashMap::new(),
        databases: HashSet::new(),
        directories: Vec::new(),
        patience: job.lock_timeout,
    };
    let root_meta = fs::metadata(job.root).map_err(|source| SourceError::Io {
        what: "read",
        path: job.root.to_owned(),
        source,
    })?;
    let walk = walk(job.root, job.filter).map_err(SourceError::Walk)?;
    stager.directory(job.copy, job.root, root_meta)?;
    for walked in walk {
        match walked {
            Walked::Found(found) => stager.take(&found)?,
            Walked::Skipped(skipped) => stager.skip(skipped.path.as_bytes(), skipped.reason),
        }
    }
    stager.finish()
}

struct Stager<'a> {
    job: &'a Job<'a>,
    started: SystemTime,
    staged: Staged,
    /// First copies of files with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    databases: HashSet<Vec<u8>>,
    /// Copy, original, its metadata: given to the copies last, since filling them changes it.
    directories: Vec<(PathBuf, PathBuf, Metadata)>,
    /// The time that is left for waiting for databases' locks.
    patience: Duration,
}

/// How a file fared.
pub(super) enum Outcome {
    /// As it was at one moment, when it looked so.
    Whole(Metadata),
    /// A database's content as of one moment, which no look of its file identifies.
    BackedUp(Metadata),
    /// It changed during every attempt.
    Torn(Metadata),
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

    fn end(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
        let path = path.to_owned();
        move |source| SourceError::Io {
            what: "write the snapshot's copy",
            path,
            source,
        }
    }

    fn directory(
        &mut self,
        copy: &Path,
        original: &Path,
        meta: Metadata,
    ) -> Result<(), SourceError> {
        super::claim::private_dir(copy).map_err(Self::end(copy))?;
        let entry = (copy.to_owned(), original.to_owned(), meta);
        self.directories.push(entry);
        Ok(())
    }

    fn take(&mut self, found: &Found) -> Result<(), SourceError> {
        let copy = self.job.copy.join(OsStr::from_bytes(&found.rel));
        let taken = if found.meta.is_dir() {
            return match self.directory(&copy, &found.abs, found.meta.clone()) {
                Err(SourceError::Io { source, .. })
                    if source.kind() == io::ErrorKind::InvalidFilename =>
                {
                    self.skip(&found.rel, source.to_string());
                    Ok(())
                }
                other => other,
            };
        } else if found.meta.is_file() {
            self.file(found, &copy)
        } else {
            self.special(found, &copy)
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Failure::Skip(reason)) => {
                let _ = fs::remove_file(&copy);
                self.staged.databases.pop_if(|rel| *rel == found.rel);
                self.skip(&found.rel, reason);
                Ok(())
            }
            Err(Failure::End(e)) => Err(Self::end(&copy)(e)),
        }
    }

    fn special(&mut self, found: &Found, copy: &Path) -> Result<(), Failure> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let kind = found.meta.file_type();
        if kind.is_symlink() {
            let text = fs::read_link(&found.abs).map_err(source)?;
            std::os::unix::fs::symlink(text, copy).map_err(destination)?;
        } else {
            let node = if kind.is_fifo() {
                FileType::Fifo
            } else if kind.is_block_device() {
                FileType::BlockDevice
            } else {
                FileType::CharacterDevice
            };
            let made = mknodat(CWD, copy, node, Mode::RUSR | Mode::WUSR, found.meta.rdev());
            match made.map_err(io::Error::from) {
                // Making device nodes is root's.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Failure::Skip(
                        "a device can be copied by root only".to_owned(),
                    ));
                }
                other => other.map_err(destination)?,
            }
        }
        let notes = &mut self.staged.notes;
        copy_metadata(&found.abs, &found.meta, copy, true, notes).map_err(destination)
    }

    fn file(&mut self, found: &Found, copy: &Path) -> Result<(), Failure> {
        if self.is_sidecar(&found.rel) {
            return Ok(());
        }
        let inode = (found.meta.dev(), found.meta.ino());
        if found.meta.nlink() > 1
            && let Some(first) = self.links.get(&inode)
        {
            match fs::hard_link(first, copy) {
                Ok(()) => {
                    self.staged.files += 1;
                    return Ok(());
                }
                Err(error) => drop(self.staged.notes.insert(format!(
                    "hard links of one file are copies of it in the snapshot: {error}"
                ))),
            }
        }
        let linked = self.link_unchanged(found, copy);
        if !linked {
            let outcome = self.content(found, copy)?;
            self.settle(found, copy, &outcome)?;
        }
        self.staged.files += 1;
        self.staged.bytes += found.meta.len();
        if found.meta.nlink() > 1 {
            self.links.insert(inode, copy.to_owned());
        }
        Ok(())
    }

    fn is_sidecar(&self, rel: &[u8]) -> bool {
        SIDECARS.iter().any(|ending| {
            let base = rel.strip_suffix(*ending);
            base.is_some_and(|base| self.databases.contains(base))
        })
    }

    fn link_unchanged(&mut self, found: &Found, copy: &Path) -> bool {
        let Some(earlier) = self.job.record.copy_of(&found.rel, &found.meta) else {
            return false;
        };
        // Through its log a database changes while its file does not.
        let is_database = head(&earlier).is_ok_and(|head| sqlite::is_sqlite(&head));
        if is_database && sqlite::has_live_journal(&found.abs) {
            return false;
        }
        if fs::hard_link(&earlier, copy).is_err() {
            return false;
        }
        if is_database {
            self.databases.insert(found.rel.clone());
        }
        if is_database || super::validate::is_called_database(&found.rel) {
            self.staged.databases.push(found.rel.clone());
        }
        let look = Look::of(&found.meta);
        self.staged.looks.push((found.rel.clone(), look));
        true
    }

    fn content(&mut self, found: &Found, copy: &Path) -> Result<Outcome, Failure> {
        let is_database = {
            let file = open_source(&found.abs).map_err(source)?;
            let mut head = [0; sqlite::HEAD_BYTES];
            let read = file.read_at(&mut head, 0).map_err(source)?;
            sqlite::is_sqlite(&head[..read])
        };
        if is_database || super::validate::is_called_database(&found.rel) {
            self.staged.databases.push(found.rel.clone());
        }
        if !is_database {
            return plain(&found.abs, copy, |_| true);
        }
        let Some(outcome) = self.database(found, copy).transpose() else {
            // It has the magic and nothing else: a file like any other.
            return plain(&found.abs, copy, |_| true);
        };
        // Even if it is skipped: its journal, beside another state of it, would spoil that.
        self.databases.insert(found.rel.clone());
        outcome
    }

    /// `None`: SQLite does not take it for a database.
    fn database(&mut self, found: &Found, copy: &Path) -> Result<Option<Outcome>, Failure> {
        let path = found.abs.as_path();
        let place = Place::of(path).map_err(source)?;
        let file = open_source(path).map_err(source)?;
        if !place.has_live_journal() {
            let outcome = match sqlite::lock_for_read(&place, &file, self.patience, None) {
                Ok(Some(lock)) => {
                    self.patience = self.patience.saturating_sub(lock.waited());
                    let meta = file.metadata().map_err(source)?;
                    copy_content(&file, copy)?;
                    return Ok(Some(Outcome::Whole(meta)));
                }
                Ok(None) => plain(path, copy, |_| !place.has_live_journal())?,
                // It would stay locked for the backup as well.
                Err(error) if error.is_busy() => return self.give_up(&error),
                // A writer may have begun, or died, since we looked: the backup knows what to do.
                Err(_) => Outcome::Torn(found.meta.clone()),
            };
            if let Outcome::Whole(_) = outcome {
                return Ok(Some(outcome));
            }
        }
        let _ = fs::remove_file(copy);
        let to = Place::of(copy).map_err(destination)?;
        match sqlite::backup_at(&place, &file, &to, self.patience) {
            Ok(()) => Ok(Some(Outcome::BackedUp(found.meta.clone()))),
            Err(e) if e.is_disk_full() => {
                Err(Failure::End(io::Error::from(io::ErrorKind::StorageFull)))
            }
            Err(e) if e.is_damage() => Ok(None),
            Err(e) if e.is_busy() => self.give_up(&e),
            Err(e) => Err(Failure::Skip(with_causes(&e))),
        }
    }

    /// Leaves a database out that stayed locked; the others of the tree are not waited for.
    fn give_up(&mut self, error: &SqliteError) -> Result<Option<Outcome>, Failure> {
        self.patience = Duration::ZERO;
        Err(Failure::Skip(with_causes(error)))
    }

    /// Gives the copy its metadata and notes what is to be remembered or told.
    fn settle(&mut self, found: &Found, copy: &Path, outcome: &Outcome) -> Result<(), Failure> {
        let (Outcome::Whole(meta) | Outcome::BackedUp(meta) | Outcome::Torn(meta)) = outcome;
        // A backup has its own time: the file's would not tell two contents of a log apart.
        let with_mtime = !matches!(outcome, Outcome::BackedUp(_));
        let notes = &mut self.staged.notes;
        copy_metadata(&found.abs, meta, copy, with_mtime, notes).map_err(destination)?;
        match outcome {
            Outcome::Whole(meta) => {
                let look = Look::of(meta);
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
        for (copy, original, meta) in self.directories.iter().rev() {
            copy_metadata(original, meta, copy, true, &mut self.staged.notes)
                .map_err(Self::end(copy))?;
        }
        Ok(self.staged)
    }
}

/// Copies until the file looked the same before and after, and `still` agrees.
pub(super) fn plain(
    path: &Path,
    copy: &Path,
    still: impl Fn(&Path) -> bool,
) -> Result<Outcome, Failure> {
    let mut attempt = 1;
    loop {
        let file = open_source(path).map_err(source)?;
        let before = file.metadata().map_err(source)?;
        copy_content(&file, copy)?;
        let after = file.metadata().map_err(source)?;
        if Look::of(&before) == Look::of(&after) && still(path) {
            return Ok(Outcome::Whole(after));
        }
        if attempt == ATTEMPTS {
            return Ok(Outcome::Torn(after));
        }
        attempt += 1;
        std::thread::sleep(PAUSE);
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut head = Vec::new();
    let limit = sqlite::HEAD_BYTES as u64;
    File::open(path)?.take(limit).read_to_end(&mut head)?;
    Ok(head)
}
