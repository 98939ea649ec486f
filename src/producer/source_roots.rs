//! The directories of the configured sources on this host, as parts of a snapshot, without our own
//! files in them.

use std::path::PathBuf;

use crate::base::database_names::Roots;
use crate::base::openat::{Chosen, Dir, Meta};
use crate::base::walk::Filter;
use crate::config::{Config, Source, SourceKind, TreeSource};
use crate::state::staged_snapshot::Part;

/// Returns the part for a snapshot directory.
pub(super) fn staged_part(dir: Chosen) -> Part {
    Part {
        to: Vec::new(),
        root: dir,
        filter: Filter::everything(),
        staged: true,
    }
}

/// Returns the part for a tree that the packer reads in place.
pub(super) fn in_place(config: &Config, source: &Source, tree: &TreeSource, root: Chosen) -> Part {
    Part {
        to: source.to.clone().into_bytes(),
        filter: with_hollows(config, &tree.filter),
        root,
        staged: false,
    }
}

/// Keeps our own state, snapshots and folder targets out of a tree that happens to hold them:
/// otherwise each snapshot would contain the one before.
pub(super) fn with_hollows(config: &Config, filter: &Filter) -> Filter {
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
    let id = |path: PathBuf| Some(Meta::of_fd(Dir::open(&path).ok()?).ok()?.id());
    filter.hollow.extend(ours.into_iter().filter_map(id));
    filter
}

/// Returns the directories in which other names of the sources' databases may be.
pub(super) fn roots(config: &Config) -> Roots {
    let path = |source: &Source| match &source.kind {
        SourceKind::Sqlite { path } => Some(path.clone()),
        SourceKind::Tree(tree) => Some(tree.path.clone()),
        SourceKind::Json { .. } | SourceKind::Command { .. } => None,
    };
    let trees = config
        .sources
        .iter()
        .filter_map(|source| match &source.kind {
            SourceKind::Tree(tree) if tree.filter.one_file_system => Some(tree.path.clone()),
            _ => None,
        });
    Roots {
        paths: config.sources.iter().filter_map(path).collect(),
        on_one_file_system: trees.collect(),
        hollow: with_hollows(config, &Filter::everything()).hollow,
    }
}
