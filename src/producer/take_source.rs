//! Copies one source: acquires its lock, runs its hooks, copies it, applies owner and mode.
//!
//! Once `before` was started, `after` runs in every case: it may be what starts a service again.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::Reread;
use super::backup_metadata::SourceEntry;
use super::command_stderr::CommandStderr;
use super::copy_file::{CopyMtime, Original, dress, set_owner};
use super::copy_meter::CopyMeter;
use super::demands;
use super::error::{SourceError, cannot, is_missing};
use super::hardlink_unchanged;
use super::hooks;
use super::json::{self, JsonVerdict};
use super::snapshot_path::snapshot_path;
use super::source_roots::{in_place, roots, with_hollows};
use super::stage_tree::{self, ATTEMPTS, EntryFailure, FileCopy, Job, PAUSE, plain};
use super::staged_files::StagedFiles;
use super::taken_source::{Draft, TakenSource};
use crate::base::command::{StdoutTo, stderr_text};
use crate::base::database_names::DatabaseNames;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, Dir, Meta, chmod_fd};
use crate::base::sqlite::{self, Place};
use crate::base::walk::walk;
use crate::config::{CommandLine, Config, Source, SourceKind, TreeSource};
use crate::format::index::Skipped;

/// Takes the sources of one snapshot.
pub(super) struct SourceTaker<'a> {
    pub config: &'a Config,
    pub stamp: Stamp,
    /// The directory of the snapshot in the making.
    pub dir: &'a Dir,
    /// The directory of the previous valid snapshot, if there is one that only we can write to.
    pub previous: Option<Dir>,
    /// Counts the bytes that are written.
    pub meter: &'a CopyMeter,
    /// Which files of staged trees are read again.
    pub reread: Reread,
}

impl SourceTaker<'_> {
    pub(crate) fn take(&self, source: &Source) -> Result<TakenSource, SourceError> {
        let hold = |path: &PathBuf| hooks::hold_lock(path, source.lock_timeout);
        let _held = source.lock.as_ref().map(hold).transpose()?;
        let (stamp, dir) = (self.stamp.to_string(), self.dir.path().to_string_lossy());
        // Unique on this host, also among runs whose snapshots came to nothing.
        let run_name = format!("{stamp}-{}", std::process::id());
        let environment = [
            ("SEALIFT_SOURCE", source.name.as_str()),
            ("SEALIFT_STAMP", stamp.as_str()),
            ("SEALIFT_RUN", run_name.as_str()),
            ("SEALIFT_SNAPSHOT", &*dir),
        ];
        let mut stderr = CommandStderr::default();
        let mut run =
            |key: &str, line: &CommandLine, stdout: StdoutTo| -> Result<String, SourceError> {
                let mut ran = hooks::run(line, stdout, &environment, source.timeout)?;
                let printed = std::mem::take(&mut ran.stdout);
                stderr.add(key, line, ran);
                Ok(printed)
            };
        let owe = |line: &CommandLine| {
            let duty = hooks::owe_after(line, &environment, source.timeout);
            (line.clone(), duty)
        };
        let owed = source.after.as_ref().map(owe);
        let before = source.before.as_ref().map_or(Ok(None), |line| {
            let stdout = match source.is_of_snapshot() {
                true => StdoutTo::Captured,
                false => StdoutTo::Dropped,
            };
            let printed = run("before", line, stdout)?;
            snapshot_made(source, line, &printed)
        });
        let taken = before.and_then(|made| {
            let mut taken = self.copy(made.as_ref().unwrap_or(source), &environment)?;
            // The path as the configuration has it, which is the same in each run.
            taken.entry.path = SourceEntry::of(source).path;
            Ok(taken)
        });
        let after = match owed {
            Some((line, duty)) if duty.take() => run("after", &line, StdoutTo::Dropped).map(drop),
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
                let watched = self.meter.watch(self.dir, copy.clone());
                let stdout = StdoutTo::Copy(file);
                let ran = hooks::run(command, stdout, environment, source.timeout)?;
                drop(watched);
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
        self.meter.expect(original.meta.len());
        let watched = self.meter.watch(self.dir, copy.clone());
        let copied = sqlite::backup_at(&from, &file, &to, source.lock_timeout);
        drop(watched);
        match copied {
            // Its bytes are kept for a repair; the check reports the damage.
            Err(e) if e.is_damage() => {
                let copied = plain(|| open(chosen), self.dir, &copy, self.meter, || true);
                copied.map_err(unread(path))?;
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
            let copied = plain(|| open(chosen), self.dir, &copy, self.meter, || true);
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
        let previous = match self.reread {
            Reread::Changed => StagedFiles::load(&file, &self.config.snapshots_dir, chosen.path()),
            Reread::Everything => StagedFiles::default(),
        };
        let staged = stage_tree::stage(&Job {
            root: chosen.dir(),
            filter: &with_hollows(self.config, &tree.filter),
            snapshot: self.dir,
            copy: &self.copy_place(source)?,
            to: &source.to,
            previous: &previous,
            roots: &roots(self.config),
            lock_timeout: source.lock_timeout,
            meter: self.meter,
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

/// Returns the source with the last line that its `before` printed in its path. `None`: its path
/// has no place for one.
fn snapshot_made(
    source: &Source,
    line: &CommandLine,
    printed: &str,
) -> Result<Option<Source>, SourceError> {
    if !source.is_of_snapshot() {
        return Ok(None);
    }
    let last = printed.lines().last().map(str::trim).unwrap_or_default();
    let made = source.of_snapshot(last);
    let is_good = !last.is_empty() && made.path().is_some_and(Path::is_absolute);
    match is_good {
        true => Ok(Some(made)),
        false => Err(SourceError::NoSnapshotPath { line: line.brief() }),
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
