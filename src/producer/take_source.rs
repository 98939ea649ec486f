//! Copies one source: acquires its lock, runs its hooks, copies it, applies owner and mode.
//!
//! Once `before` was started, `after` runs in every case: it may be what starts a service again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::backup_metadata::SourceEntry;
use super::command_stderr::CommandStderr;
use super::copy_file::{CopyMtime, Original, dress, set_owner};
use super::demands;
use super::error::{SourceError, cannot, is_missing};
use super::hardlink_unchanged;
use super::hooks;
use super::json::{self, JsonVerdict};
use super::snapshot_path::snapshot_path;
use super::source_roots::{in_place, roots, with_hollows};
use super::stage_tree::{self, ATTEMPTS, EntryFailure, FileCopy, Job, PAUSE, plain};
use super::staged_files::{self, FileStamp, StagedFiles};
use crate::base::command::{StdoutTo, stderr_text};
use crate::base::database_names::DatabaseNames;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, Dir, Meta, chmod_fd};
use crate::base::sqlite::{self, Place};
use crate::base::walk::walk;
use crate::config::{CommandLine, Config, Source, SourceKind, TreeSource};
use crate::format::index::Skipped;
use crate::state::staged_snapshot::{LeftOut, Part};

/// One source in the snapshot.
pub(super) struct TakenSource {
    /// What the metadata says of it.
    pub entry: SourceEntry,
    /// The part for the packer, of a tree that is read in place.
    pub part: Option<Part>,
    /// Paths of the files that look like databases, of a copied tree. `None`: not looked for.
    pub databases: Option<Vec<Vec<u8>>>,
    /// Paths that could not be copied, or not well, and why.
    pub skipped: Vec<Skipped>,
    /// Remarks for the operator.
    pub notes: BTreeSet<String>,
    /// A possible defect that no check can show.
    pub warning: Option<String>,
    /// Of a copied tree: what the next snapshot may link to.
    draft: Option<Draft>,
}

/// The record of a staged tree, which is written once the snapshot is published.
struct Draft {
    /// The record's path.
    file: PathBuf,
    /// The source's place in the snapshot.
    to: String,
    /// The tree's real path.
    root: PathBuf,
    file_stamps: Vec<(Vec<u8>, FileStamp)>,
}

impl TakenSource {
    fn new(entry: SourceEntry) -> Self {
        Self {
            entry,
            part: None,
            databases: None,
            skipped: Vec::new(),
            notes: BTreeSet::new(),
            warning: None,
            draft: None,
        }
    }

    /// Returns a source that could not be taken.
    pub(crate) fn failed(source: &Source, error: &SourceError) -> Self {
        let mut taken = Self::new(SourceEntry::of(source));
        taken.leave_out(Vec::new(), with_causes(error), error.next(), None);
        taken
    }

    /// Removes it from the snapshot, for the reason given.
    pub(crate) fn leave_out(
        &mut self,
        errors: Vec<String>,
        cause: String,
        next: String,
        kept: Option<String>,
    ) {
        self.part = None;
        self.draft = None;
        self.entry.present = false;
        self.entry.left_out = Some(LeftOut {
            source: self.entry.name.clone(),
            to: self.entry.to.clone(),
            errors,
            cause,
            next,
            kept,
        });
    }

    /// Adds the stderr of its commands.
    fn add_stderr(&mut self, stderr: CommandStderr) {
        self.entry.stderr.extend(stderr.stderr);
        self.notes.extend(stderr.notes);
    }

    /// Makes the next snapshot copy this source in full.
    pub(crate) fn require_full_copy(&self) {
        if let Some(draft) = &self.draft {
            staged_files::remove(&draft.file);
        }
    }

    /// Writes the record that lets the next snapshot link to this one's copies. Returns a note if
    /// that fails.
    pub(crate) fn save_draft(&self, stamp: Stamp) -> Option<String> {
        let draft = self.draft.as_ref()?;
        let saved = staged_files::save(
            &draft.file,
            stamp,
            &draft.to,
            &draft.root,
            &draft.file_stamps,
        );
        let error = saved.err()?;
        let file = draft.file.display();
        Some(format!(
            "cannot write {file}, so the next snapshot copies everything: {error}"
        ))
    }
}

/// Takes the sources of one snapshot.
pub(super) struct SourceTaker<'a> {
    pub config: &'a Config,
    pub stamp: Stamp,
    /// The directory of the snapshot in the making.
    pub dir: &'a Dir,
    /// The directory of the previous valid snapshot, if there is one that only we can write to.
    pub previous: Option<Dir>,
}

impl SourceTaker<'_> {
    pub(crate) fn take(&self, source: &Source) -> Result<TakenSource, SourceError> {
        let hold = |path: &PathBuf| hooks::hold_lock(path, source.lock_timeout);
        let _held = source.lock.as_ref().map(hold).transpose()?;
        let (stamp, dir) = (self.stamp.to_string(), self.dir.path().to_string_lossy());
        let environment = [
            ("SEALIFT_SOURCE", source.name.as_str()),
            ("SEALIFT_STAMP", stamp.as_str()),
            ("SEALIFT_SNAPSHOT", &*dir),
        ];
        let mut stderr = CommandStderr::default();
        let mut run = |key: &str, line: &CommandLine| {
            let ran = hooks::run(line, StdoutTo::Dropped, &environment, source.timeout)?;
            stderr.add(key, line, ran);
            Ok(())
        };
        let owe = |line: &CommandLine| {
            let duty = hooks::owe_after(line, &environment, source.timeout);
            (line.clone(), duty)
        };
        let owed = source.after.as_ref().map(owe);
        let before = source.before.as_ref();
        let before = before.map_or(Ok(()), |line| run("before", line));
        let taken = before.and_then(|()| self.copy(source, &environment));
        let after = match owed {
            Some((line, duty)) if duty.take() => run("after", &line),
            _ => Ok(()),
        };
        match (taken, after) {
            (Ok(mut taken), after) => {
                taken.add_stderr(stderr);
                if let Err(after) = after {
                    // The copy is good, so it is kept; but a service may still be stopped.
                    taken.skipped.push(Skipped {
                        path: source.to.clone(),
                        reason: format!(
                            "taken in full, but `after` failed: {}",
                            with_causes(&after)
                        ),
                    });
                }
                Ok(taken)
            }
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(after)) => Err(SourceError::Both {
                after: with_causes(&after),
                source: Box::new(error),
            }),
        }
    }

    fn copy(
        &self,
        source: &Source,
        environment: &[(&str, &str)],
    ) -> Result<TakenSource, SourceError> {
        let mut taken = TakenSource::new(SourceEntry::of(source));
        let path = match &source.kind {
            SourceKind::Command { command } => {
                let copy = self.copy_place(source)?;
                let created = self.dir.create_file(&copy, 0o600);
                let file = created.map_err(cannot("create", &self.dir.path_of(&copy)))?;
                let stdout = StdoutTo::Copy(file);
                let ran = hooks::run(command, stdout, environment, source.timeout)?;
                self.finish(source, None, &copy, &mut taken)?;
                if taken.entry.bytes == 0 && !source.allow_empty {
                    return Err(SourceError::Empty {
                        line: command.brief(),
                        stderr: stderr_text(ran.stderr),
                    });
                }
                let mut stderr = CommandStderr::default();
                stderr.add("command", command, ran);
                taken.add_stderr(stderr);
                return Ok(taken);
            }
            SourceKind::Sqlite { path } | SourceKind::Json { path } => path,
            SourceKind::Tree(tree) => &tree.path,
        };
        let chosen = match Chosen::open(path) {
            Err(e) if is_missing(&e) && source.optional => {
                taken.entry.present = false;
                return Ok(taken);
            }
            Err(e) if is_missing(&e) => return Err(SourceError::Missing(path.clone())),
            other => other.map_err(cannot("read", path))?,
        };
        if let SourceKind::Tree(tree) = &source.kind {
            demands::check(tree, &chosen)?;
        }
        match &source.kind {
            SourceKind::Tree(tree) if tree.stage => {
                self.stage(source, tree, &chosen, &mut taken)?
            }
            SourceKind::Tree(tree) => {
                let part = in_place(self.config, source, tree, chosen);
                if part.root.is_dir() {
                    // Here a root that cannot be walked is this source's failure; later it would be
                    // the run's.
                    walk(part.root.dir(), &part.filter).map_err(SourceError::Walk)?;
                }
                taken.part = Some(part);
            }
            SourceKind::Json { .. } => self.json(source, &chosen, &mut taken)?,
            _ => self.database(source, &chosen, &mut taken)?,
        }
        Ok(taken)
    }

    /// Returns the place of the source's copy in the snapshot. Makes the directory for it.
    fn copy_place(&self, source: &Source) -> Result<OsString, SourceError> {
        let copy = snapshot_path(&source.to);
        let parent = Path::new(&copy).parent().unwrap_or(Path::new(""));
        let made = self.dir.make_dirs(parent, 0o700);
        made.map_err(cannot("create", &self.dir.path_of(parent)))?;
        Ok(copy)
    }

    fn database(
        &self,
        source: &Source,
        chosen: &Chosen,
        taken: &mut TakenSource,
    ) -> Result<(), SourceError> {
        let copy = self.copy_place(source)?;
        let path = chosen.path();
        let (file, _) = open(chosen).map_err(cannot("read", path))?;
        let original = Original::of_fd(&file).map_err(cannot("read", path))?;
        let mut names = DatabaseNames::new(roots(self.config));
        let home = names.home(chosen.dir(), chosen.name(), &original.meta);
        let home = home.map_err(cannot("read", path))?;
        let doubt = home.doubt().map(|reason| Skipped {
            path: source.to.clone(),
            reason,
        });
        taken.skipped.extend(doubt);
        let from = home.place;
        let to =
            Place::below(self.dir, &copy).map_err(cannot("create", &self.dir.path_of(&copy)))?;
        match sqlite::backup_at(&from, &file, &to, source.lock_timeout) {
            // Its bytes are kept for a repair; the check reports the damage.
            Err(e) if e.is_damage() => {
                plain(|| open(chosen), self.dir, &copy, || true).map_err(unread(path))?;
            }
            other => other?,
        }
        self.finish(source, Some((&original, CopyMtime::Own)), &copy, taken)
    }

    /// Copies a JSON file. Tries again if it is not JSON, as a program may be rewriting it.
    fn json(
        &self,
        source: &Source,
        chosen: &Chosen,
        taken: &mut TakenSource,
    ) -> Result<(), SourceError> {
        let copy = self.copy_place(source)?;
        let attempt = || {
            let copied = plain(|| open(chosen), self.dir, &copy, || true);
            copied.map_err(unread(chosen.path()))
        };
        let mut outcome = attempt()?;
        for _ in 1..ATTEMPTS {
            if !matches!(json::check(self.dir, &copy), JsonVerdict::Invalid(_)) {
                break;
            }
            std::thread::sleep(PAUSE);
            outcome = attempt()?;
        }
        if let FileCopy::Torn(_) = outcome {
            taken.skipped.push(Skipped {
                path: source.to.clone(),
                reason: "changed during each attempt to copy it; kept as last read".to_owned(),
            });
        }
        self.finish(
            source,
            Some((outcome.original(), CopyMtime::Original)),
            &copy,
            taken,
        )
    }

    /// Sets owner, mode and times of the copy; then replaces it by the previous one if they are
    /// equal.
    fn finish(
        &self,
        source: &Source,
        original: Option<(&Original, CopyMtime)>,
        copy: &OsString,
        taken: &mut TakenSource,
    ) -> Result<(), SourceError> {
        let dressed = (|| {
            let (file, _) = self.dir.open_file(copy)?;
            let mut mtime = CopyMtime::Own;
            if let Some((original, original_mtime)) = original {
                mtime = original_mtime;
                dress(&file, original, mtime, &mut taken.notes)?;
            }
            if let Some((uid, gid)) = source.owner {
                set_owner(&file, uid, gid, &mut taken.notes)?;
            }
            if let Some(mode) = source.mode {
                chmod_fd(&file, mode)?;
            }
            taken.entry.files = 1;
            taken.entry.bytes = Meta::of_fd(&file)?.size();
            io::Result::Ok(mtime)
        })();
        let shown = self.dir.path_of(copy);
        let mtime = dressed.map_err(cannot("set the owner and mode of", &shown))?;
        if let Some(earlier) = &self.previous {
            hardlink_unchanged::link_if_same(earlier, self.dir, copy, mtime);
        }
        Ok(())
    }

    fn stage(
        &self,
        source: &Source,
        tree: &TreeSource,
        chosen: &Chosen,
        taken: &mut TakenSource,
    ) -> Result<(), SourceError> {
        if !chosen.is_dir() {
            return Err(SourceError::NotADirectory(tree.path.clone()));
        }
        let file = self
            .config
            .state
            .join("stage")
            .join(format!("{}.jsonl", source.name));
        let previous = StagedFiles::load(&file, &self.config.snapshots_dir, chosen.path());
        let staged = stage_tree::stage(&Job {
            root: chosen.dir(),
            filter: &with_hollows(self.config, &tree.filter),
            snapshot: self.dir,
            copy: &self.copy_place(source)?,
            to: &source.to,
            previous: &previous,
            roots: &roots(self.config),
            lock_timeout: source.lock_timeout,
        })?;
        taken.entry.files = staged.files;
        taken.entry.bytes = staged.bytes;
        taken.skipped = staged.skipped;
        taken.notes = staged.notes;
        taken.warning = unguarded(source);
        taken.databases = Some(staged.databases);
        taken.draft = Some(Draft {
            file,
            to: source.to.clone(),
            root: chosen.path().to_owned(),
            file_stamps: staged.file_stamps,
        });
        Ok(())
    }
}

/// Warns of a tree that is taken on request only, because nothing may write to it meanwhile, and
/// that has neither `lock` nor `before`.
fn unguarded(source: &Source) -> Option<String> {
    source.is_unguarded().then(|| {
        format!(
            "{}: programs could write there while it was copied; give its source a `lock` or a `before`, or stop them first",
            source.name
        )
    })
}

fn open(chosen: &Chosen) -> io::Result<(File, Meta)> {
    chosen.dir().open_file(chosen.name())
}

fn unread(path: &Path) -> impl FnOnce(EntryFailure) -> SourceError {
    let path = path.to_owned();
    move |failure| {
        let source = match failure {
            EntryFailure::Skip(reason) => io::Error::other(reason),
            EntryFailure::End(error) => error,
        };
        SourceError::Io {
            what: "copy",
            path,
            source,
        }
    }
}
