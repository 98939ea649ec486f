//! Copies one entry of a tree.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use super::super::copy_file::{
    CopyMtime, FileCopyError, Original, copy_content, dress, dress_entry,
};
use super::super::copy_meter::CopyMeter;
use super::super::probe_file::{is_called_database, read_head};
use super::super::staged_files::FileStamp;
use super::seen::{EntryStamp, flag};
use super::{ATTEMPTS, CopiedDatabase, CopiedName, PAUSE, SIDECARS, Stager};
use crate::base::openat::{Dir, Kind, Meta};
use crate::base::sqlite;
use crate::base::walk::{Found, exchanged};

/// The state of a file's copy.
pub(in super::super) enum FileCopy {
    /// The file at one moment, when it had this metadata.
    Whole(Original),
    /// The content of a database at one moment, which no stamp of its file identifies.
    BackedUp(Original),
    /// It changed during every attempt.
    Torn(Original),
}

impl FileCopy {
    /// Returns the metadata for the copy.
    pub(crate) fn original(&self) -> &Original {
        let (Self::Whole(original) | Self::BackedUp(original) | Self::Torn(original)) = self;
        original
    }
}

/// Why an entry could not be copied.
pub(in super::super) enum EntryFailure {
    /// It cannot be read, for this reason: the snapshot is made without it.
    Skip(String),
    /// The copy cannot be written: there is no snapshot.
    End(io::Error),
}

impl From<FileCopyError> for EntryFailure {
    fn from(error: FileCopyError) -> Self {
        match error {
            FileCopyError::Source(e) => Self::Skip(e.to_string()),
            // A path that is too long only in the snapshot concerns this one file.
            FileCopyError::Destination(e) if e.kind() == io::ErrorKind::InvalidFilename => {
                Self::Skip(e.to_string())
            }
            FileCopyError::Destination(e) => Self::End(e),
        }
    }
}

/// Makes an error of the copy an [`EntryFailure`].
pub(super) fn destination(e: io::Error) -> EntryFailure {
    FileCopyError::Destination(e).into()
}

/// Makes an error of the original an [`EntryFailure`].
pub(super) fn source(e: io::Error) -> EntryFailure {
    FileCopyError::Source(e).into()
}

/// What was made for an entry.
pub(super) enum MadeCopy {
    /// Nothing: the copy of its database is complete without it.
    Sidecar,
    /// A further name of the copy of a file with several names.
    Link {
        /// The file has changed since it was copied.
        in_doubt: bool,
    },
    /// A copy of a file.
    File,
    /// A directory, symlink, FIFO or device.
    Other,
}

/// The lengths of the lists in [`Staged`](super::Staged) at one moment.
#[derive(Clone, Copy)]
pub(super) struct StagedMark {
    files: u64,
    bytes: u64,
    file_stamps: usize,
    databases: usize,
    skipped: usize,
}

impl StagedMark {
    /// Whether there are reports that `earlier` did not have.
    pub(crate) fn has_reports_since(&self, earlier: Self) -> bool {
        self.skipped > earlier.skipped
    }
}

impl Stager<'_> {
    pub(super) fn mark(&self) -> StagedMark {
        let staged = &self.staged;
        StagedMark {
            files: staged.files,
            bytes: staged.bytes,
            file_stamps: staged.file_stamps.len(),
            databases: staged.databases.len(),
            skipped: staged.skipped.len(),
        }
    }

    /// Removes the additions since `mark`, except reports.
    pub(super) fn reset(&mut self, mark: StagedMark) {
        let staged = &mut self.staged;
        (staged.files, staged.bytes) = (mark.files, mark.bytes);
        staged.file_stamps.truncate(mark.file_stamps);
        staged.databases.truncate(mark.databases);
    }

    /// Notes what was made for the entry with the stamp `state`. `None`: nothing.
    pub(super) fn note(
        &mut self,
        rel: &[u8],
        state: EntryStamp,
        mark: StagedMark,
        made: Option<&MadeCopy>,
    ) {
        let (mut state, staged) = (state, &self.staged);
        state.flags |= match made {
            None => 0,
            Some(MadeCopy::Sidecar) => flag::SIDECAR,
            Some(MadeCopy::Link { .. }) => flag::MADE | flag::COUNTED,
            Some(MadeCopy::File) => flag::MADE | flag::COUNTED | flag::SIZED,
            Some(MadeCopy::Other) => flag::MADE,
        };
        for (flag, is_so) in [
            (flag::RECORDED, staged.file_stamps.len() > mark.file_stamps),
            (flag::DATABASE, staged.databases.len() > mark.databases),
            (flag::SKIPPED, staged.skipped.len() > mark.skipped),
        ] {
            state.flags |= if is_so { flag } else { 0 };
        }
        if let Some(MadeCopy::Link { in_doubt: true }) = made {
            state = state.in_doubt();
        }
        self.staged.seen.note(rel, state);
    }

    /// Copies `found`, which is no directory, to `copy`, where nothing is.
    pub(super) fn make(&mut self, found: &Found, copy: &OsStr) -> Result<MadeCopy, EntryFailure> {
        match found.meta.kind() {
            Kind::File => self.file(found, copy),
            _ => self.special(found, copy).map(|()| MadeCopy::Other),
        }
    }

    /// Copies a symlink, FIFO or device.
    fn special(&mut self, found: &Found, copy: &OsStr) -> Result<(), EntryFailure> {
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
                    // Only root can make device nodes.
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                        let reason = "only root can copy a device";
                        return Err(EntryFailure::Skip(reason.to_owned()));
                    }
                    other => other.map_err(destination)?,
                }
            }
            _ => return Err(source(exchanged())),
        }
        let notes = &mut self.staged.notes;
        dress_entry(snapshot, copy, &Original::of_pin(&pin), notes).map_err(destination)
    }

    /// Copies a file, or links it to an equal copy.
    fn file(&mut self, found: &Found, copy: &OsStr) -> Result<MadeCopy, EntryFailure> {
        if self.is_sidecar(&found.rel) {
            return Ok(MadeCopy::Sidecar);
        }
        if let Some(first) = self.first_name(found) {
            let snapshot = self.job.snapshot;
            match snapshot.link(self.copy_of(&first.rel), snapshot, copy) {
                Ok(()) => {
                    if let Some(known) = self.staged.known.get(&first.rel).cloned() {
                        self.staged.known.insert(found.rel.clone(), known);
                    }
                    self.staged.files += 1;
                    let in_doubt = first.look != FileStamp::of(&found.meta);
                    return Ok(MadeCopy::Link { in_doubt });
                }
                Err(error) => drop(self.staged.notes.insert(format!(
                    "hard links of one file are copies in the snapshot, not links: {error}"
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
        self.note_first(found, &meta);
        Ok(MadeCopy::File)
    }

    /// Makes a directory of the copy.
    pub(super) fn make_directory(
        &mut self,
        found: &Found,
        copy: &OsStr,
    ) -> Result<MadeCopy, EntryFailure> {
        self.job.make_dir(copy).map_err(destination)?;
        let directory = (found.rel.clone(), found.meta);
        self.staged.directories.push(directory);
        Ok(MadeCopy::Other)
    }

    /// Lets further names of the file become links to its copy, which was made when it had `meta`.
    pub(super) fn note_first(&mut self, found: &Found, meta: &Meta) {
        if meta.nlink() > 1 {
            let copied = CopiedName {
                rel: found.rel.clone(),
                look: FileStamp::of(meta),
            };
            self.links.entry(meta.id()).or_default().push(copied);
        }
    }

    /// Whether `rel` is a sidecar of a copied database.
    pub(super) fn is_sidecar(&self, rel: &[u8]) -> bool {
        SIDECARS.iter().any(|ending| {
            let base = rel.strip_suffix(*ending);
            base.is_some_and(|base| self.staged.known.contains_key(base))
        })
    }

    /// Links the file to its copy in the previous snapshot, if it has not changed since.
    fn link_unchanged(&mut self, found: &Found, copy: &OsStr) -> bool {
        let Some(earlier) = self.job.previous.copies_with(&found.rel, &found.meta) else {
            return false;
        };
        // A change of a database may be in its log only.
        let is_database =
            read_head(earlier, found.rel()).is_ok_and(|head| sqlite::is_sqlite(&head));
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
            self.staged
                .known
                .insert(found.rel.clone(), CopiedDatabase::default());
        }
        if is_database || is_called_database(&found.rel) {
            self.staged.databases.push(found.rel.clone());
        }
        let look = FileStamp::of(&found.meta);
        self.staged.file_stamps.push((found.rel.clone(), look));
        true
    }

    /// Sets the metadata of the copy and notes its stamp or a report.
    fn settle(
        &mut self,
        found: &Found,
        copy: &OsStr,
        outcome: &FileCopy,
    ) -> Result<(), EntryFailure> {
        // A backup keeps its own time: with the file's, two contents of a log would look equal.
        let mtime = match outcome {
            FileCopy::BackedUp(_) => CopyMtime::Own,
            FileCopy::Whole(_) | FileCopy::Torn(_) => CopyMtime::Original,
        };
        let (file, _) = self.job.snapshot.open_file(copy).map_err(destination)?;
        let notes = &mut self.staged.notes;
        dress(&file, outcome.original(), mtime, notes).map_err(destination)?;
        match outcome {
            FileCopy::Whole(original) => {
                let look = FileStamp::of(&original.meta);
                if !look.is_racy(self.started) {
                    self.staged.file_stamps.push((found.rel.clone(), look));
                }
            }
            FileCopy::Torn(_) => {
                let reason = format!(
                    "changed during each of {ATTEMPTS} attempts to copy it; kept as last read"
                );
                self.skip(&found.rel, reason);
            }
            FileCopy::BackedUp(_) => {}
        }
        Ok(())
    }
}

/// Copies a file until its stamp is the same before and after, and `still` agrees. Counts the bytes
/// of every attempt.
pub(in super::super) fn plain(
    open: impl Fn() -> io::Result<(File, Meta)>,
    snapshot: &Dir,
    copy: &OsStr,
    meter: &CopyMeter,
    still: impl Fn() -> bool,
) -> Result<FileCopy, EntryFailure> {
    let mut attempt = 1;
    loop {
        let (file, before) = open().map_err(source)?;
        copy_content(&file, snapshot, copy, meter)?;
        let original = Original::of_fd(&file).map_err(source)?;
        if FileStamp::of(&before) == FileStamp::of(&original.meta) && still() {
            return Ok(FileCopy::Whole(original));
        }
        if attempt == ATTEMPTS {
            return Ok(FileCopy::Torn(original));
        }
        attempt += 1;
        std::thread::sleep(PAUSE);
    }
}
