//! SourceTaker one source: its lock, its hooks around it, its copy and what the copy is dressed in.
//!
//! `after` runs whatever happened once `before` was begun: it may be what starts a service again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backup_metadata::SourceEntry;
use super::copy_file::{Original, dress, set_owner};
use super::demands;
use super::error::{SourceError, cannot, is_missing};
use super::hardlink_unchanged;
use super::hooks;
use super::json::{self, JsonVerdict};
use super::snapshot_path::snapshot_path;
use super::source_roots::{in_place, roots, with_hollows};
use super::stage_tree::{self, ATTEMPTS, EntryFailure, FileCopy, Job, PAUSE, plain};
use super::staged_files::{self, FileStamp, StagedFiles};
use crate::base::cleanup::CleanupGuard;
use crate::base::database_names::DatabaseNames;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, Dir, Meta, chmod_fd};
use crate::base::sqlite::{self, Place};
use crate::base::walk::walk;
use crate::config::{CommandLine, Config, Source, SourceKind, TreeSource};
use crate::format::index::Skipped;
use crate::state::staged_snapshot::{LeftOut, Part};

/// Lines of stderr that a note shows; the metadata has more.
const SHOWN_LINES: usize = 3;

/// One source in the snapshot.
pub(super) struct TakenSource {
    pub entry: SourceEntry,
    /// Of a tree that is read in place.
    pub part: Option<Part>,
    /// What of a staged tree calls itself a database.
    pub databases: Option<Vec<Vec<u8>>>,
    pub skipped: Vec<Skipped>,
    pub notes: BTreeSet<String>,
    pub warning: Option<String>,
    record: Option<Draft>,
}

/// A stage record that counts once the snapshot is published.
struct Draft {
    file: PathBuf,
    to: String,
    root: PathBuf,
    looks: Vec<(Vec<u8>, FileStamp)>,
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
            record: None,
        }
    }

    /// A source that could not be taken.
    pub fn failed(source: &Source, error: &SourceError) -> Self {
        let mut taken = Self::new(SourceEntry::of(source));
        taken.leave_out(Vec::new(), with_causes(error), error.next(), None);
        taken
    }

    /// Makes it one that the snapshot lacks.
    pub fn leave_out(
        &mut self,
        errors: Vec<String>,
        cause: String,
        next: String,
        kept: Option<String>,
    ) {
        self.part = None;
        self.record = None;
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

    /// Makes the next snapshot copy this source afresh.
    pub fn forget(&self) {
        if let Some(draft) = &self.record {
            staged_files::forget(&draft.file);
        }
    }

    /// Lets the next snapshot link to this one's copies; a failure is told.
    pub fn remember(&self, stamp: Stamp) -> Option<String> {
        let draft = self.record.as_ref()?;
        let saved = staged_files::save(&draft.file, stamp, &draft.to, &draft.root, &draft.looks);
        let error = saved.err()?;
        let file = draft.file.display();
        Some(format!(
            "cannot write {file}, the next snapshot copies everything: {error}"
        ))
    }
}

/// Lets `line` run even if this process is told to end between `before` and `after`.
fn owe(line: &CommandLine, environment: &[(&str, &str)], timeout: Duration) -> CleanupGuard {
    let line = line.clone();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Vec<(String, String)> = environment.iter().map(owned).collect();
    CleanupGuard::register(move || {
        let borrowed = environment.iter().map(|(name, value)| (&**name, &**value));
        let environment: Vec<(&str, &str)> = borrowed.collect();
        match hooks::run_last(&line, &environment, timeout) {
            Ok(_) => format!("ran `{line}`, as `after` demands"),
            Err(error) => with_causes(&error),
        }
    })
}

/// What the commands of a source wrote to stderr although they succeeded.
#[derive(Default)]
struct CommandStderr {
    stderr: BTreeMap<String, String>,
    notes: BTreeSet<String>,
}

impl CommandStderr {
    fn add(&mut self, key: &str, line: &CommandLine, ran: hooks::Ran) {
        self.notes.extend(ran.warning);
        if ran.stderr.is_empty() {
            return;
        }
        let lines: Vec<&str> = ran.stderr.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
        self.notes.insert(format!(
            "`{}` succeeded, and wrote to stderr:\n  {last}",
            line.brief()
        ));
        self.stderr.insert(key.to_owned(), ran.stderr);
    }

    fn tell(self, taken: &mut TakenSource) {
        taken.entry.stderr.extend(self.stderr);
        taken.notes.extend(self.notes);
    }
}

/// What all sources of a snapshot share.
pub(super) struct SourceTaker<'a> {
    pub config: &'a Config,
    pub stamp: Stamp,
    /// The snapshot in the making.
    pub dir: &'a Dir,
    /// The newest valid snapshot.
    pub previous: Option<Dir>,
}

impl SourceTaker<'_> {
    pub fn take(&self, source: &Source) -> Result<TakenSource, SourceError> {
        let hold = |path: &PathBuf| hooks::hold_lock(path, source.lock_timeout);
        let _held = source.lock.as_ref().map(hold).transpose()?;
        let (stamp, dir) = (self.stamp.to_string(), self.dir.path().to_string_lossy());
        let environment = [
            ("SEALIFT_SOURCE", source.name.as_str()),
            ("SEALIFT_STAMP", stamp.as_str()),
            ("SEALIFT_SNAPSHOT", &*dir),
        ];
        let mut heard = CommandStderr::default();
        let mut run = |key: &str, line: &CommandLine| {
            let ran = hooks::run(line, None, &environment, source.timeout)?;
            heard.add(key, line, ran);
            Ok(())
        };
        let owe = |line: &CommandLine| (line.clone(), owe(line, &environment, source.timeout));
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
                heard.tell(&mut taken);
                if let Err(after) = after {
                    // The copy is good, so it is kept; but whatever was stopped for it may still be.
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
                let ran = hooks::run(command, Some(file), environment, source.timeout)?;
                self.finish(source, None, &copy, &mut taken)?;
                if taken.entry.bytes == 0 && !source.allow_empty {
                    return Err(SourceError::Empty {
                        line: command.brief(),
                        stderr: hooks::said(ran.stderr),
                    });
                }
                let mut heard = CommandStderr::default();
                heard.add("command", command, ran);
                heard.tell(&mut taken);
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
                    // Here a root that cannot be walked is this source's failure; later it would be the run's.
                    walk(part.root.dir(), &part.filter).map_err(SourceError::Walk)?;
                }
                taken.part = Some(part);
            }
            SourceKind::Json { .. } => self.json(source, &chosen, &mut taken)?,
            _ => self.database(source, &chosen, &mut taken)?,
        }
        Ok(taken)
    }

    /// Where the source's copy will be in the snapshot. Makes the directory for it.
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
            // Its bytes are kept, for whoever repairs it; the check calls them what they are.
            Err(e) if e.is_damage() => {
                plain(|| open(chosen), self.dir, &copy, || true).map_err(unread(path))?;
            }
            other => other?,
        }
        self.finish(source, Some((&original, false)), &copy, taken)
    }

    /// A file that someone is just rewriting is given the time to be whole.
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
        self.finish(source, Some((outcome.original(), true)), &copy, taken)
    }

    /// Owner, mode and the rest; then the earlier copy takes the place of one that is the same.
    fn finish(
        &self,
        source: &Source,
        original: Option<(&Original, bool)>,
        copy: &OsString,
        taken: &mut TakenSource,
    ) -> Result<(), SourceError> {
        let dressed = (|| {
            let (file, _) = self.dir.open_file(copy)?;
            let mut with_mtime = false;
            if let Some((original, mtime)) = original {
                with_mtime = mtime;
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
            io::Result::Ok(with_mtime)
        })();
        let shown = self.dir.path_of(copy);
        let with_mtime = dressed.map_err(cannot("give owner and mode to", &shown))?;
        if let Some(earlier) = &self.previous {
            hardlink_unchanged::link_if_same(earlier, self.dir, copy, with_mtime);
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
        let record = StagedFiles::load(&file, &self.config.snapshots_dir, chosen.path());
        let staged = stage_tree::stage(&Job {
            root: chosen.dir(),
            filter: &with_hollows(self.config, &tree.filter),
            snapshot: self.dir,
            copy: &self.copy_place(source)?,
            to: &source.to,
            record: &record,
            roots: &roots(self.config),
            lock_timeout: source.lock_timeout,
        })?;
        taken.entry.files = staged.files;
        taken.entry.bytes = staged.bytes;
        taken.skipped = staged.skipped;
        taken.notes = staged.notes;
        taken.warning = unguarded(source);
        taken.databases = Some(staged.databases);
        taken.record = Some(Draft {
            file,
            to: source.to.clone(),
            root: chosen.path().to_owned(),
            looks: staged.looks,
        });
        Ok(())
    }
}

/// Warns of a tree that is taken on request only, as it must not be written meanwhile, and that nothing guards.
fn unguarded(source: &Source) -> Option<String> {
    source.is_unguarded().then(|| {
        format!(
            "{}: nothing held back programs that write there while it was copied; give its source a `lock` or a `before`, or stop them first",
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
