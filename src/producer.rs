//! Sources → snapshot: a stamped directory of copies, validated before it gets its name.
//!
//! The copies are made in `.partial-<stamp>`, checked, and appear as `<stamp>` by one rename; if a check
//! failed, as `invalid-<stamp>`, to be looked at and never packed. Trees with `stage = false` are not
//! copied: they become parts that the packer reads where they are. What had to be left out is listed in
//! the snapshot: a run with such a list is not a complete one.
//!
//! Crash argument: see `claim`. A run that died leaves a partial directory, which the next one removes.

mod claim;
mod command;
mod copy;
mod forget;
mod json;
mod local;
mod metadata;
mod previous;
mod record;
mod source;
mod stage;
mod validate;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::config::{Config, Source};
use crate::index::{Skipped, SourceRecord, ValidationRecord};
use crate::openat::Chosen;
use crate::snapshot::{Part, Snapshot};
use crate::sqlite::SqliteError;
use crate::walk::{Filter, WalkError};

use claim::Claim;
use metadata::Document;
use source::{SourceEntry, Taken, Taking};

pub use forget::forget;
pub use local::{LocalSnapshot, from_dir, list};
pub use validate::{Validation, validate};

#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    #[error("there is nothing to back up: the configuration names no source")]
    NoSources,
    #[error("no source is named {name:?}; there is {}", known.join(", "))]
    UnknownInclude { name: String, known: Vec<String> },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no snapshot was made: the source {name:?} could not be taken")]
    Source {
        name: String,
        #[source]
        source: Box<SourceError>,
    },
    #[error("the snapshot is not valid ({}) and will not be packed; it is kept as {}{}", errors.join(", "), dir.display(), indented(details))]
    Invalid {
        dir: PathBuf,
        errors: Vec<String>,
        details: Vec<String>,
    },
}

fn indented(details: &[String]) -> String {
    details.iter().map(|line| format!("\n  {line}")).collect()
}

/// Why one source could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("cannot start `{line}`")]
    Start {
        line: String,
        #[source]
        source: io::Error,
    },
    #[error("`{line}` failed, {status}: {stderr}")]
    Command {
        line: String,
        status: String,
        stderr: String,
    },
    #[error("the lock file {} stayed locked for {} s", path.display(), waited.as_secs())]
    Locked { path: PathBuf, waited: Duration },
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("its `after` failed as well ({after})")]
    Both {
        after: String,
        #[source]
        source: Box<SourceError>,
    },
    #[error(transparent)]
    Walk(WalkError),
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

/// What is asked for beyond the configuration.
#[derive(Debug, Clone)]
pub struct ProduceRequest {
    /// Names of sources that are taken on request only.
    pub include: Vec<String>,
    pub tags: Vec<String>,
    pub note: Option<String>,
    pub now: DateTime<Utc>,
    /// The directory of the snapshot before this one: unchanged files become hard links to its own.
    pub previous: Option<PathBuf>,
}

/// A snapshot that is valid and has its name.
#[derive(Debug)]
pub struct Produced {
    pub snapshot: Snapshot,
    pub dir: PathBuf,
    /// The content of `backup-metadata.json`.
    pub metadata: serde_json::Value,
    /// Worth telling, but nothing is missing because of it.
    pub notes: Vec<String>,
    /// What may be wrong with the snapshot, though nothing shows it.
    pub warnings: Vec<String>,
}

/// Makes a snapshot of the configured sources.
pub fn produce(config: &Config, request: &ProduceRequest) -> Result<Produced, ProduceError> {
    let wanted = wanted_sources(config, &request.include)?;
    let snapshots_dir = config.snapshots_dir.as_path();
    let at_dir = |what| failed(what, snapshots_dir);
    let mut notes: BTreeSet<String> = claim::clear_stale(snapshots_dir)
        .map_err(at_dir("read the snapshots directory"))?
        .into_iter()
        .collect();
    let claim =
        Claim::take(snapshots_dir, request.now).map_err(at_dir("make a snapshot directory in"))?;
    let taking = Taking {
        config,
        stamp: claim.stamp,
        dir: &claim.partial,
        previous: request.previous.as_deref().and_then(local::previous),
    };
    let mut taken = Vec::new();
    for source in wanted {
        let one = taking.take(source).map_err(|error| ProduceError::Source {
            name: source.name.clone(),
            source: Box::new(error),
        })?;
        notes.extend(one.notes.iter().cloned());
        taken.push(one);
    }
    let (metadata, validation) = describe(config, request, &claim, &taken);
    let text = metadata.write(&claim.partial);
    let value = text.map_err(failed("write the metadata of", claim.partial.path()))?;
    let stamp = claim.stamp;
    let valid = validation.valid;
    let published = claim.publish(valid).and_then(Chosen::of_dir);
    let published = published.map_err(at_dir("put the snapshot in its place in"))?;
    let dir = published.path().to_owned();
    if !valid {
        // A damaged earlier copy would be linked to again and again.
        for one in &taken {
            one.forget();
        }
        return Err(ProduceError::Invalid {
            dir,
            errors: validation.errors,
            details: validation.details,
        });
    }
    // Without it the next snapshot copies more than it must, nothing worse.
    notes.extend(taken.iter().filter_map(|one| one.remember(stamp)));
    Ok(Produced {
        warnings: taken.iter().filter_map(|one| one.warning.clone()).collect(),
        snapshot: assemble(config, metadata, published, stamp, taken),
        dir,
        metadata: value,
        notes: notes.into_iter().collect(),
    })
}

/// The sources of this run, by the file's order.
fn wanted_sources<'a>(
    config: &'a Config,
    include: &[String],
) -> Result<Vec<&'a Source>, ProduceError> {
    if config.sources.is_empty() {
        return Err(ProduceError::NoSources);
    }
    let names = || config.sources.iter().map(|source| source.name.clone());
    for name in include {
        if !names().any(|known| known == *name) {
            return Err(ProduceError::UnknownInclude {
                name: name.clone(),
                known: names().collect(),
            });
        }
    }
    let asked = |source: &&Source| !source.on_request || include.contains(&source.name);
    Ok(config.sources.iter().filter(asked).collect())
}

/// Checks what was taken and writes down what it is.
fn describe(
    config: &Config,
    request: &ProduceRequest,
    claim: &Claim,
    taken: &[Taken],
) -> (Document, Validation) {
    let mut skipped: Vec<Skipped> = taken.iter().flat_map(|one| one.skipped.clone()).collect();
    let mut checker = validate::Checker::new(&claim.partial);
    for one in taken {
        checker.check(&one.entry, one.databases.as_deref());
    }
    skipped.append(&mut checker.reports);
    let validation = checker.finish();
    let dir = claim.destination(validation.valid);
    let entries: Vec<SourceEntry> = taken.iter().map(|one| one.entry.clone()).collect();
    let about = metadata::About {
        host: config.host.as_str(),
        stamp: claim.stamp,
        created_at: request.now,
        dir: &dir,
        tags: &request.tags,
        note: request.note.as_deref(),
    };
    let metadata = Document::new(&about, entries, &validation, skipped);
    (metadata, validation)
}

/// The value that the packer takes.
fn assemble(
    config: &Config,
    metadata: Document,
    dir: Chosen,
    stamp: crate::ids::Stamp,
    taken: Vec<Taken>,
) -> Snapshot {
    let about = metadata.sealift;
    let mut parts = vec![staged_part(dir)];
    parts.extend(taken.into_iter().filter_map(|one| one.part));
    Snapshot {
        stamp,
        parts,
        roots: source::roots(config),
        tags: about.tags,
        note: about.note,
        sources: records(&about.sources),
        validation: ValidationRecord {
            valid: about.validation.valid,
            checked_at: about.validation.checked_at,
            errors: about.validation.errors,
        },
        databases: about.databases,
        skipped: about.skipped,
    }
}

fn staged_part(dir: Chosen) -> Part {
    Part {
        to: Vec::new(),
        root: dir,
        filter: Filter::everything(),
        staged: true,
    }
}

/// The sources that the snapshot holds.
fn records(entries: &[SourceEntry]) -> Vec<SourceRecord> {
    let present = entries.iter().filter(|entry| entry.present);
    present
        .map(|entry| SourceRecord {
            kind: entry.kind.clone(),
            path: entry.path.clone(),
            to: entry.to.clone(),
            stage: entry.stage,
        })
        .collect()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProduceError {
    let path = path.to_owned();
    move |source| ProduceError::Io { what, path, source }
}
