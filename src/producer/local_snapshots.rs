//! Lists, deletes and opens the snapshots on this host; opens other directories as snapshots.

use std::io;
use std::path::{Path, PathBuf};

use super::backup_metadata::{Metadata, SourceEntry, Validation, left_out, records};
use super::demands;
use super::error::{ProduceError, SourceError, cannot, failed, is_missing};
use super::snapshot_dir::{INVALID, PARTIAL};
use super::source_roots::{in_place, roots, staged_part};
use super::staged_files::is_ours;
use super::validate::{self, validate_open};
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, Dir, Kind};
use crate::config::{Config, SourceKind};
use crate::format::index::{DatabaseRecord, Skipped, SourceRecord, ValidationRecord};
use crate::state::staged_snapshot::{LeftOut, Part, StagedSnapshot};

/// A snapshot directory of this host.
#[derive(Debug, Clone)]
pub struct LocalSnapshot {
    /// The stamp that is its name.
    pub stamp: Stamp,
    /// The path of its directory.
    pub path: PathBuf,
    /// The content of `backup-metadata.json`. `None`: missing or unreadable.
    pub metadata: Option<serde_json::Value>,
    /// Whether its metadata calls it valid; the listing checks nothing itself. `None`: it does not
    /// say.
    pub valid: Option<bool>,
}

/// Returns the snapshots in `dir`, sorted by stamp: the directories whose names are stamps. A
/// missing `dir` holds none. If a clock was wrong, they were not made in this order: see
/// `jobs::push::in_order`.
pub fn list(dir: &Path) -> Result<Vec<LocalSnapshot>, ProduceError> {
    let stamps = stamps(dir).map_err(failed("read the snapshots directory", dir))?;
    Ok(stamps
        .into_iter()
        .map(|(stamp, chosen)| {
            let metadata = Metadata::read(chosen.dir()).ok().flatten();
            LocalSnapshot {
                stamp,
                path: dir.join(stamp.to_string()),
                valid: metadata.as_ref().and_then(Metadata::valid),
                metadata: metadata.map(|metadata| metadata.value),
            }
        })
        .collect())
}

/// Returns the sources that failed when the snapshot in `dir` was made, by its metadata.
pub fn left_out_of(dir: &Path) -> Vec<LeftOut> {
    let chosen = Chosen::open(dir).ok();
    let metadata = chosen.and_then(|chosen| Metadata::read(chosen.dir()).ok().flatten());
    let section = metadata.and_then(|metadata| metadata.sealift);
    section.map_or(Vec::new(), |section| left_out(&section.sources))
}

/// Returns where in the snapshot in `dir` the trees belong that were read in place, by its
/// metadata: the directory does not hold them.
pub fn in_place_of(dir: &Path) -> Vec<String> {
    let chosen = Chosen::open(dir).ok();
    let metadata = chosen.and_then(|chosen| Metadata::read(chosen.dir()).ok().flatten());
    let sources = metadata.and_then(|metadata| metadata.sealift);
    let sources = sources.into_iter().flat_map(|section| section.sources);
    let in_place = sources.filter(|source| source.present && !source.stage);
    in_place
        .map(|source| source.to.trim_matches('/').to_owned())
        .collect()
}

/// What the metadata of a snapshot says about where it was made.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFacts {
    /// The host that made it. `None`: it does not say.
    pub host: Option<String>,
    /// Its stamp. `None`: it does not say.
    pub stamp: Option<Stamp>,
    /// Its sources.
    pub sources: Vec<SourceFacts>,
}

/// What the metadata of a snapshot says about one source.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// The source's name.
    pub name: String,
    /// Its path on the host that made the snapshot. `None`: it does not say.
    pub path: Option<PathBuf>,
    /// Its place in the snapshot.
    pub to: String,
    /// The snapshot holds it.
    pub present: bool,
    /// It was copied into the snapshot's directory. False: it was read in place.
    pub staged: bool,
}

/// Returns what the metadata of the snapshot in `dir` says about where it was made.
pub fn facts_of(dir: &Path) -> SnapshotFacts {
    let chosen = Chosen::open(dir).ok().filter(Chosen::is_dir);
    let Some(chosen) = chosen else {
        return SnapshotFacts::default();
    };
    let metadata = Metadata::read(chosen.dir()).ok().flatten();
    let section = metadata
        .as_ref()
        .and_then(|metadata| metadata.sealift.clone());
    let host = section.as_ref().map(|section| section.host.clone());
    let entries = match section {
        Some(section) => section.sources,
        None => validate::atocore_layout(chosen.dir(), metadata.as_ref()),
    };
    let sources = entries.into_iter().map(|entry| SourceFacts {
        name: entry.name,
        path: Some(PathBuf::from(entry.path)).filter(|path| path.is_absolute()),
        to: entry.to,
        present: entry.present && entry.left_out.is_none(),
        staged: entry.stage,
    });
    let name = chosen.path().file_name().and_then(|name| name.to_str());
    let of_name = name.and_then(|name| name.parse().ok());
    SnapshotFacts {
        host: host.filter(|host| !host.is_empty()),
        stamp: of_name.or_else(|| metadata.as_ref().and_then(Metadata::stamp)),
        sources: sources.collect(),
    }
}

fn stamps(dir: &Path) -> io::Result<Vec<(Stamp, Chosen)>> {
    let dir = match Dir::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in dir.entries()? {
        let stamp = entry.name.to_str().and_then(|name| name.parse().ok());
        if let Some(stamp) = stamp
            && matches!(entry.kind, Kind::Dir | Kind::Symlink)
        {
            names.push((stamp, entry));
        }
    }
    names.sort_unstable_by_key(|(stamp, _)| *stamp);
    let open = |(stamp, entry): (Stamp, crate::base::openat::DirEntry)| {
        let chosen = match entry.kind {
            Kind::Dir => Chosen::of_dir(dir.sub(&entry.name).ok()?).ok()?,
            // The operator may keep a snapshot elsewhere and link to it.
            _ => Chosen::open(&dir.path_of(&entry.name)).ok()?,
        };
        chosen.is_dir().then_some((stamp, chosen))
    };
    Ok(names.into_iter().filter_map(open).collect())
}

/// Deletes `snapshot`. It is renamed first: a run that dies leaves a partial directory, which the
/// next run removes, and never half a snapshot.
pub fn delete(snapshot: &LocalSnapshot) -> Result<(), ProduceError> {
    let (path, stamp) = (&snapshot.path, snapshot.stamp);
    let partial = format!("{PARTIAL}{stamp}");
    let (dir, name) = Dir::open_parent(path).map_err(failed("delete", path))?;
    let renamed = dir.rename(&name, &dir, &partial);
    renamed.map_err(failed("delete", path))?;
    let removed = dir.remove_tree(&partial);
    removed.map_err(failed("delete", &dir.path_of(&partial)))
}

/// Opens the snapshot whose files the next one may link to. `None`: another user could have changed
/// it.
pub(super) fn previous(dir: &Path) -> Option<Dir> {
    let chosen = Chosen::open(dir).ok()?;
    let is_usable = chosen.is_dir() && is_ours(chosen.dir());
    is_usable.then(|| chosen.dir().clone())
}

/// Opens an existing directory as a snapshot. It is checked, and refused if it is invalid.
///
/// With `attach_in_place`, the trees that belong to the snapshot but were read in place are read
/// from their configured paths; otherwise they are reported as skipped.
pub fn from_dir(
    config: &Config,
    dir: &Path,
    attach_in_place: bool,
) -> Result<StagedSnapshot, ProduceError> {
    let chosen = Chosen::open(dir).and_then(|chosen| match chosen.is_dir() {
        true => Ok(chosen),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(_) => return Err(refusal(dir, validate::validate(dir))),
    };
    let validation = validate_open(&chosen);
    let metadata = Metadata::read(chosen.dir()).ok().flatten();
    let Some(metadata) = metadata else {
        // A directory that is no snapshot is packed as a live tree: the packer copies its databases
        // safely, and reports damage instead of refusing. A snapshot must have metadata.
        let mut codes = validation.errors.iter();
        return match codes.all(|code| code == "db_integrity_check_failed") {
            true => plain_directory(chosen),
            false => Err(refusal(dir, validation)),
        };
    };
    if !validation.valid {
        return Err(refusal(dir, validation));
    }
    let name = chosen.path().file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if metadata.valid() == Some(false) || name.starts_with(INVALID) {
        return Err(ProduceError::Invalid {
            dir: chosen.path().to_owned(),
            errors: vec!["kept aside when it was made".to_owned()],
            details: Vec::new(),
        });
    }
    let stamp = match name.parse().ok().or_else(|| metadata.stamp()) {
        Some(stamp) => stamp,
        None => stamp_of_now(dir)?,
    };
    let mut snapshot = described(config, chosen, stamp, &metadata, validation.databases);
    let sources = metadata.sealift.unwrap_or_default().sources;
    attach_trees(config, &mut snapshot, &sources, attach_in_place)?;
    Ok(snapshot)
}

/// Returns the snapshot in `chosen` as its metadata describes it, without trees that were read in
/// place.
pub(super) fn described(
    config: &Config,
    chosen: Chosen,
    stamp: Stamp,
    metadata: &Metadata,
    databases: Vec<DatabaseRecord>,
) -> StagedSnapshot {
    let sources = match &metadata.sealift {
        Some(section) => records(&section.sources),
        None => atocores_records(config, chosen.dir(), metadata),
    };
    let section = metadata.sealift.clone().unwrap_or_default();
    StagedSnapshot {
        stamp,
        parts: vec![staged_part(chosen)],
        roots: roots(config),
        sources,
        validation: ValidationRecord {
            valid: true,
            checked_at: clock::now(),
            errors: Vec::new(),
        },
        databases,
        left_out: left_out(&section.sources),
        tags: section.tags,
        note: section.note,
        skipped: section.skipped,
    }
}

/// Adds the trees of `sources` that were read in place, or reports them as skipped.
fn attach_trees(
    config: &Config,
    snapshot: &mut StagedSnapshot,
    sources: &[SourceEntry],
    attach_in_place: bool,
) -> Result<(), ProduceError> {
    for entry in sources.iter().filter(|entry| entry.present && !entry.stage) {
        match attach(config, entry, attach_in_place)? {
            Some(part) => snapshot.parts.push(part),
            None => snapshot.skipped.push(Skipped {
                path: entry.to.clone(),
                reason: format!(
                    "not in the snapshot's directory: {} was read in place",
                    entry.path
                ),
            }),
        }
    }
    Ok(())
}

fn refusal(dir: &Path, validation: Validation) -> ProduceError {
    ProduceError::Invalid {
        dir: dir.to_owned(),
        errors: validation.errors,
        details: validation.details,
    }
}

/// Returns the stamp for a directory without one.
fn stamp_of_now(dir: &Path) -> Result<Stamp, ProduceError> {
    let stamp = Stamp::at(clock::now()).map_err(io::Error::other);
    stamp.map_err(failed("stamp a snapshot of", dir))
}

/// Returns a directory that is no snapshot as a single live tree.
fn plain_directory(chosen: Chosen) -> Result<StagedSnapshot, ProduceError> {
    let now = clock::now();
    let path = chosen.path().display().to_string();
    Ok(StagedSnapshot {
        stamp: stamp_of_now(chosen.path())?,
        parts: vec![Part {
            staged: false,
            ..staged_part(chosen)
        }],
        roots: Default::default(),
        tags: Vec::new(),
        note: None,
        sources: vec![SourceRecord {
            kind: "tree".to_owned(),
            path,
            to: String::new(),
            stage: false,
        }],
        validation: ValidationRecord {
            valid: true,
            checked_at: now,
            errors: Vec::new(),
        },
        databases: Vec::new(),
        skipped: Vec::new(),
        left_out: Vec::new(),
    })
}

/// Returns the records of AtoCore's sources. Its metadata does not name their paths on the host;
/// the configuration may.
fn atocores_records(config: &Config, dir: &Dir, metadata: &Metadata) -> Vec<SourceRecord> {
    let mut entries = validate::atocore_layout(dir, Some(metadata));
    for entry in &mut entries {
        let source = config.sources.iter().find(|source| source.to == entry.to);
        entry.path = match source {
            Some(source) => SourceEntry::of(source).path,
            None => dir.path_of(&entry.to).display().to_string(),
        };
    }
    records(&entries)
}

/// Returns the part for a tree that was read in place, if it is `wanted` and still configured so.
fn attach(
    config: &Config,
    entry: &SourceEntry,
    wanted: bool,
) -> Result<Option<Part>, ProduceError> {
    let source = config
        .sources
        .iter()
        .find(|source| wanted && source.to == entry.to);
    let Some((source, tree)) = source.and_then(|source| match &source.kind {
        SourceKind::Tree(tree) if !tree.stage => Some((source, tree)),
        _ => None,
    }) else {
        return Ok(None);
    };
    let unread = |error: io::Error| ProduceError::Source {
        name: source.name.clone(),
        source: Box::new(match is_missing(&error) {
            true => SourceError::Missing(tree.path.clone()),
            false => cannot("read", &tree.path)(error),
        }),
    };
    let root = Chosen::open(&tree.path).map_err(unread)?;
    demands::check(tree, &root).map_err(|error| ProduceError::Source {
        name: source.name.clone(),
        source: Box::new(error),
    })?;
    Ok(Some(in_place(config, source, tree, root)))
}
