//! Taking one source: its lock, its hooks around it, its copy and what the copy is dressed in.
//!
//! `after` runs whatever happened once `before` was begun: it may be what starts a service again.

use std::collections::BTreeSet;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SourceError;
use super::copy::{copy_metadata, set_owner};
use super::json::{self, Verdict};
use super::record::{self, Look, Record};
use super::stage::{self, ATTEMPTS, Failure, Job, Outcome, PAUSE, plain};
use super::{claim, command, previous};
use crate::config::{Check, CommandLine, Config, Source, SourceKind, TreeSource};
use crate::error::with_causes;
use crate::ids::Stamp;
use crate::index::Skipped;
use crate::interrupt::Duty;
use crate::snapshot::Part;
use crate::sqlite;
use crate::walk::Filter;

/// What `backup-metadata.json` says about one source.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SourceEntry {
    pub name: String,
    pub kind: String,
    pub path: String,
    pub to: String,
    /// Copied into the snapshot; else read in place by the packer.
    pub stage: bool,
    /// Of trees: a damaged database makes the snapshot invalid.
    pub strict: bool,
    /// `false`: it was not there, and is optional.
    pub present: bool,
    pub files: u64,
    pub bytes: u64,
}

impl SourceEntry {
    pub fn of(source: &Source) -> Self {
        let (path, stage, strict) = match &source.kind {
            SourceKind::Sqlite { path } | SourceKind::Json { path } => {
                (path.display().to_string(), true, true)
            }
            SourceKind::Tree(tree) => {
                let strict = tree.check == Check::Strict;
                (tree.path.display().to_string(), tree.stage, strict)
            }
            SourceKind::Command { command } => (command.to_string(), true, true),
        };
        Self {
            name: source.name.clone(),
            kind: source.kind.name().to_owned(),
            path,
            to: source.to.clone(),
            stage,
            strict,
            present: true,
            files: 0,
            bytes: 0,
        }
    }
}

/// One source in the snapshot.
pub(super) struct Taken {
    pub entry: SourceEntry,
    /// Of a tree that is read in place.
    pub part: Option<Part>,
    /// What of a staged tree calls itself a database.
    pub databases: Option<Vec<Vec<u8>>>,
    pub skipped: Vec<Skipped>,
    pub notes: BTreeSet<String>,
    record: Option<Draft>,
}

/// A stage record that counts once the snapshot is published.
struct Draft {
    file: PathBuf,
    to: String,
    root: PathBuf,
    looks: Vec<(Vec<u8>, Look)>,
}

impl Taken {
    fn new(entry: SourceEntry) -> Self {
        Self {
            entry,
            part: None,
            databases: None,
            skipped: Vec::new(),
            notes: BTreeSet::new(),
            record: None,
        }
    }

    /// Makes the next snapshot copy this source afresh.
    pub fn forget(&self) {
        if let Some(draft) = &self.record {
            let _ = fs::remove_file(&draft.file);
        }
    }

    /// Lets the next snapshot link to this one's copies; a failure is told.
    pub fn remember(&self, stamp: Stamp) -> Option<String> {
        let draft = self.record.as_ref()?;
        let saved = record::save(&draft.file, stamp, &draft.to, &draft.root, &draft.looks);
        let error = saved.err()?;
        let file = draft.file.display();
        Some(format!(
            "cannot write {file}, the next snapshot copies everything: {error}"
        ))
    }
}

/// Lets `line` run even if this process is told to end between `before` and `after`.
fn owe(line: &CommandLine, environment: &[(&str, &str)], timeout: Duration) -> Duty {
    let line = line.clone();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Vec<(String, String)> = environment.iter().map(owned).collect();
    Duty::owe(move || {
        let borrowed = environment.iter().map(|(name, value)| (&**name, &**value));
        let environment: Vec<(&str, &str)> = borrowed.collect();
        match command::run_last(&line, &environment, timeout) {
            Ok(()) => format!("ran `{line}`, as `after` demands"),
            Err(error) => with_causes(&error),
        }
    })
}

/// What all sources of a snapshot share.
pub(super) struct Taking<'a> {
    pub config: &'a Config,
    pub stamp: Stamp,
    /// The snapshot in the making.
    pub dir: &'a Path,
    /// The newest valid snapshot.
    pub previous: Option<PathBuf>,
}

impl Taking<'_> {
    pub fn take(&self, source: &Source) -> Result<Taken, SourceError> {
        let hold = |path: &PathBuf| command::hold_lock(path, source.lock_timeout);
        let _held = source.lock.as_ref().map(hold).transpose()?;
        let (stamp, dir) = (self.stamp.to_string(), self.dir.to_string_lossy());
        let environment = [
            ("SEALIFT_SOURCE", source.name.as_str()),
            ("SEALIFT_STAMP", stamp.as_str()),
            ("SEALIFT_SNAPSHOT", &*dir),
        ];
        let run = |line| command::run(line, None, &environment, source.timeout);
        let owe = |line: &CommandLine| (line.clone(), owe(line, &environment, source.timeout));
        let owed = source.after.as_ref().map(owe);
        let before = source.before.as_ref().map_or(Ok(()), run);
        let taken = before.and_then(|()| self.copy(source, &environment));
        let after = match owed {
            Some((line, duty)) if duty.take() => run(&line),
            _ => Ok(()),
        };
        match (taken, after) {
            (taken, Ok(())) => taken,
            (Ok(mut taken), Err(after)) => {
                // The copy is good, so it is kept; but whatever was stopped for it may still be.
                taken.skipped.push(Skipped {
                    path: source.to.clone(),
                    reason: format!("taken in full, but `after` failed: {}", chain(&after)),
                });
                Ok(taken)
            }
            (Err(error), Err(after)) => Err(SourceError::Both {
                after: chain(&after),
                source: Box::new(error),
            }),
        }
    }

    fn copy(&self, source: &Source, environment: &[(&str, &str)]) -> Result<Taken, SourceError> {
        let mut taken = Taken::new(SourceEntry::of(source));
        let path = match &source.kind {
            SourceKind::Command { command } => {
                let copy = self.copy_path(source)?;
                let mut options = OpenOptions::new();
                let created = options.write(true).create_new(true).mode(0o600).open(&copy);
                let file = created.map_err(cannot("create", &copy))?;
                command::run(command, Some(file), environment, source.timeout)?;
                self.finish(source, None, &copy, &mut taken)?;
                return Ok(taken);
            }
            SourceKind::Sqlite { path } | SourceKind::Json { path } => path,
            SourceKind::Tree(tree) => &tree.path,
        };
        let found = path
            .canonicalize()
            .and_then(|path| Ok((fs::metadata(&path)?, path)));
        let (meta, path) = match found {
            Err(e) if is_missing(&e) && source.optional => {
                taken.entry.present = false;
                return Ok(taken);
            }
            Err(e) if is_missing(&e) => return Err(SourceError::Missing(path.clone())),
            other => other.map_err(cannot("read", path))?,
        };
        match &source.kind {
            SourceKind::Tree(tree) if tree.stage => self.stage(source, tree, path, &mut taken)?,
            SourceKind::Tree(tree) => taken.part = Some(in_place(self.config, source, tree, path)),
            SourceKind::Json { .. } => self.json(source, &path, &mut taken)?,
            _ => self.database(source, &path, &meta, &mut taken)?,
        }
        Ok(taken)
    }

    fn copy_path(&self, source: &Source) -> Result<PathBuf, SourceError> {
        let copy = self.dir.join(&source.to);
        let parent = copy.parent().unwrap_or(self.dir);
        claim::private_dir(parent).map_err(cannot("create", parent))?;
        Ok(copy)
    }

    fn database(
        &self,
        source: &Source,
        path: &Path,
        meta: &Metadata,
        taken: &mut Taken,
    ) -> Result<(), SourceError> {
        let copy = self.copy_path(source)?;
        match sqlite::backup(path, &copy, source.lock_timeout) {
            // Its bytes are kept, for whoever repairs it; the check calls them what they are.
            Err(e) if e.is_damage() => {
                plain(path, &copy, |_| true).map_err(unread(path))?;
            }
            other => other?,
        }
        self.finish(source, Some((path, meta, false)), &copy, taken)
    }

    /// A file that someone is just rewriting is given the time to be whole.
    fn json(&self, source: &Source, path: &Path, taken: &mut Taken) -> Result<(), SourceError> {
        let copy = self.copy_path(source)?;
        let mut outcome = plain(path, &copy, |_| true).map_err(unread(path))?;
        for _ in 1..ATTEMPTS {
            if !matches!(json::check(&copy), Verdict::Invalid(_)) {
                break;
            }
            std::thread::sleep(PAUSE);
            outcome = plain(path, &copy, |_| true).map_err(unread(path))?;
        }
        if let Outcome::Torn(_) = outcome {
            taken.skipped.push(Skipped {
                path: source.to.clone(),
                reason: "changed during each attempt to copy it; kept as last read".to_owned(),
            });
        }
        let (Outcome::Whole(meta) | Outcome::BackedUp(meta) | Outcome::Torn(meta)) = &outcome;
        self.finish(source, Some((path, meta, true)), &copy, taken)
    }

    /// Owner, mode and the rest; then the earlier copy takes the place of one that is the same.
    fn finish(
        &self,
        source: &Source,
        original: Option<(&Path, &Metadata, bool)>,
        copy: &Path,
        taken: &mut Taken,
    ) -> Result<(), SourceError> {
        let dressed = (|| {
            let mut with_mtime = false;
            if let Some((path, meta, mtime)) = original {
                with_mtime = mtime;
                copy_metadata(path, meta, copy, mtime, &mut taken.notes)?;
            }
            if let Some((uid, gid)) = source.owner {
                set_owner(copy, uid, gid, &mut taken.notes)?;
            }
            if let Some(mode) = source.mode {
                fs::set_permissions(copy, fs::Permissions::from_mode(mode))?;
            }
            taken.entry.files = 1;
            taken.entry.bytes = fs::metadata(copy)?.size();
            io::Result::Ok(with_mtime)
        })();
        let with_mtime = dressed.map_err(cannot("give owner and mode to", copy))?;
        if let Some(earlier) = &self.previous {
            previous::link_if_same(&earlier.join(&source.to), copy, self.dir, with_mtime);
        }
        Ok(())
    }

    fn stage(
        &self,
        source: &Source,
        tree: &TreeSource,
        root: PathBuf,
        taken: &mut Taken,
    ) -> Result<(), SourceError> {
        if !root.is_dir() {
            return Err(SourceError::NotADirectory(tree.path.clone()));
        }
        let file = self
            .config
            .state
            .join("stage")
            .join(format!("{}.jsonl", source.name));
        let record = Record::load(&file, &self.config.snapshots_dir, &root);
        let staged = stage::stage(&Job {
            root: &root,
            filter: &with_hollows(self.config, &tree.filter, &root),
            copy: &self.copy_path(source)?,
            to: &source.to,
            record: &record,
            lock_timeout: source.lock_timeout,
        })?;
        taken.entry.files = staged.files;
        taken.entry.bytes = staged.bytes;
        taken.skipped = staged.skipped;
        taken.notes = staged.notes;
        taken.databases = Some(staged.databases);
        taken.record = Some(Draft {
            file,
            to: source.to.clone(),
            root,
            looks: staged.looks,
        });
        Ok(())
    }
}

/// The part that the packer reads where it is.
pub(super) fn in_place(config: &Config, source: &Source, tree: &TreeSource, root: PathBuf) -> Part {
    Part {
        to: source.to.clone().into_bytes(),
        filter: with_hollows(config, &tree.filter, &root),
        root,
        staged: false,
    }
}

/// Keeps our own state, snapshots and folder targets out of a tree that happens to hold them: each
/// snapshot would contain the one before.
fn with_hollows(config: &Config, filter: &Filter, root: &Path) -> Filter {
    let folder = |url: &str| {
        let url = url::Url::parse(url)
            .ok()
            .filter(|url| url.scheme() == "file")?;
        Some(url.to_file_path().ok()?.join(config.host.as_str()))
    };
    let mut ours = vec![config.state.clone(), config.snapshots_dir.clone()];
    ours.extend(
        config
            .targets
            .iter()
            .filter_map(|target| folder(&target.url)),
    );
    let mut filter = filter.clone();
    let inside = ours.into_iter().filter_map(|path| path.canonicalize().ok());
    filter
        .hollow
        .extend(inside.filter(|path| path != root && path.starts_with(root)));
    filter
}

pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

pub(super) fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Io { what, path, source }
}

fn unread(path: &Path) -> impl FnOnce(Failure) -> SourceError {
    let path = path.to_owned();
    move |failure| {
        let source = match failure {
            Failure::Skip(reason) => io::Error::other(reason),
            Failure::End(error) => error,
        };
        SourceError::Io {
            what: "copy",
            path,
            source,
        }
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
