//! The private directory for content that arrives on the host, before it is put in place.
//!
//! It is on the file system of the state directory or of the live data: the content passes through
//! there in clear, and other file systems (`/tmp`) may be shared, small, or memory.

use std::path::{Path, PathBuf};

use crate::base::cleanup::CleanupGuard;
use crate::base::fs::free_bytes;
use crate::base::openat::Dir;
use crate::base::scratch_dir::ScratchDir;
use crate::base::units::size;
use crate::config::{Config, Source, SourceKind};
use crate::jobs::context::scratch_dir;
use crate::jobs::error::JobError;

/// The job's name in that of the directory.
const VERB: &str = "in-place";
/// The tree in the directory.
pub(crate) const TREE: &str = "content";
/// What the names of the directories of drills begin with.
pub(crate) const DRILL_DIRS: [&str; 2] = ["sealift-drill-", "sealift-kept-"];

/// A scratch directory, which is removed when this is dropped, and when the process is asked to
/// end.
pub(crate) struct ContentScratch {
    dir: ScratchDir,
    owed: CleanupGuard,
}

impl Drop for ContentScratch {
    fn drop(&mut self) {
        // The directory is removed by its own drop, after this.
        self.owed.take();
    }
}

impl ContentScratch {
    /// Makes a directory in which `bytes` have room, where most room is.
    pub(super) fn make(config: &Config, bytes: u64) -> Result<Self, JobError> {
        let mut refused = Vec::new();
        let free = |place: PathBuf| (free_bytes(&place), place);
        let mut places: Vec<_> = places(config).into_iter().map(free).collect();
        places.sort_by_key(|(free, _)| std::cmp::Reverse(*free.as_ref().unwrap_or(&0)));
        for (free, place) in places {
            match free {
                Ok(free) if free < bytes => {
                    refused.push(format!("{} has {} free", place.display(), size(free)));
                }
                Ok(_) => match ScratchDir::make(VERB, Some(&place)) {
                    Ok(dir) => return Ok(Self::owed(dir)),
                    Err(error) => refused.push(JobError::from(error).with_causes()),
                },
                Err(error) => refused.push(format!("{}: {error}", place.display())),
            }
        }
        let needed = size(bytes);
        let refused = refused.join("; ");
        let text =
            format!("no room for the content of the restore, which needs {needed}: {refused}");
        Err(JobError::work(text).with_next(
            "make room on one of these file systems; the state directory must be this user's own",
        ))
    }

    /// Makes a directory on the key holder's machine, in `parent` if the operator chose one.
    pub(crate) fn for_push(parent: Option<&Path>) -> Result<Self, JobError> {
        scratch_dir("push", parent).map(Self::owed)
    }

    /// Makes a directory for a drill, in `parent` if the operator chose one. Removes those of
    /// drills that were killed.
    pub(crate) fn for_drill(parent: Option<&Path>) -> Result<Self, JobError> {
        drill_dir("drill", parent).map(Self::owed)
    }

    /// Makes a directory for a drill whose data stays: no later drill takes it for abandoned.
    pub(crate) fn for_kept_drill(parent: Option<&Path>) -> Result<Self, JobError> {
        drill_dir("kept", parent).map(Self::owed)
    }

    /// Keeps the directory.
    pub(crate) fn keep(&self) {
        self.dir.private().keep();
    }

    /// Registers the removal of `dir`.
    fn owed(dir: ScratchDir) -> Self {
        let private = std::sync::Arc::clone(dir.private());
        let owed = CleanupGuard::register(move || match private.remove() {
            Ok(()) => "removed the decrypted files".to_owned(),
            Err(error) => format!(
                "{} holds decrypted files and could not be removed ({error}): remove it",
                private.dir().path().display()
            ),
        });
        Self { dir, owed }
    }

    /// Returns the name and the path of the tree, which is not made yet.
    pub(crate) fn tree(&self) -> (&'static str, PathBuf) {
        (TREE, self.dir.path().join(TREE))
    }

    /// Returns the open directory.
    pub(crate) fn dir(&self) -> &Dir {
        self.dir.private().dir()
    }
}

fn drill_dir(verb: &str, parent: Option<&Path>) -> Result<ScratchDir, JobError> {
    ScratchDir::make_after_killed(verb, parent).map_err(|error| {
        JobError::from(error).with_next("name a directory of your own with --scratch")
    })
}

/// Returns the directories in which the content may pass through, the state directory first. None
/// is within a live tree, which is about to be exchanged.
fn places(config: &Config) -> Vec<PathBuf> {
    // A host that restores everything may not have one yet.
    let _ = Dir::open_or_make(&config.state, 0o700);
    let mut places = vec![config.state.clone()];
    let live = |source| live_path(config, source);
    let trees: Vec<&Path> = config.sources.iter().filter_map(live).collect();
    let is_within_one = |place: &Path| trees.iter().any(|tree| place.starts_with(tree));
    for source in &config.sources {
        let live = live_path(config, source);
        let above = live.and_then(Path::parent);
        let above = above.into_iter().flat_map(Path::ancestors);
        // Where nothing is left of the live data, that is the nearest directory above.
        if let Some(place) = above.map(Path::to_path_buf).find(|path| path.is_dir())
            && !places.contains(&place)
            && !is_within_one(&place)
        {
            places.push(place);
        }
    }
    places
}

/// Returns the path at which the source's data is. `None`: it has none.
fn live_path<'a>(config: &'a Config, source: &'a Source) -> Option<&'a Path> {
    let mapped = config.restore.map.get(&source.name);
    mapped.map(PathBuf::as_path).or(match &source.kind {
        SourceKind::Sqlite { path } | SourceKind::Json { path } => Some(path),
        SourceKind::Tree(tree) => Some(&tree.path),
        _ => None,
    })
}
