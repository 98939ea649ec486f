//! Makes a directory of AtoCore one of this host's snapshots.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;

use super::super::atocore_error::AtoCoreError;
use super::super::backup_metadata::{Metadata, Validation};
use super::super::copy_file::{CopyMtime, dress};
use super::super::copy_meter::CopyMeter;
use super::super::error::SourceError;
use super::super::local_snapshots::described;
use super::super::snapshot_dir::{self, INVALID, PendingSnapshot, Validity};
use super::super::source_roots::roots;
use super::super::stage_tree::{self, EntryFailure, Job, plain};
use super::super::staged_files::StagedFiles;
use super::super::validate::validate_open;
use super::super::{ProduceRequest, Produced, begin};
use super::ask::ask;
use super::find::{FoundSnapshot, find};
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, DirEntry, Kind};
use crate::base::progress::{Progress, Stage};
use crate::base::walk::Filter;
use crate::config::{AtoCoreSource, Config, LOCK_TIMEOUT};
use crate::format::index::Skipped;
use crate::state::staged_snapshot::LeftOut;

/// Asks AtoCore for a snapshot and adopts it.
pub(super) fn adopt(
    config: &Config,
    source: &AtoCoreSource,
    request: &ProduceRequest,
    with_chroma: bool,
    progress: &dyn Progress,
) -> Result<Produced, AtoCoreError> {
    // The machine's clock, which AtoCore has, too, and not one that a drill sets.
    let asked = clock::of_files().into();
    let root = ask(source, with_chroma)?;
    let found = find(config, source, &root, asked, clock::of_files().into())?;
    if request.taken.contains(&found.stamp) {
        return Err(AtoCoreError::NotASnapshot {
            root,
            what: "was backed up already".to_owned(),
        });
    }
    begin(progress, Stage::Validating, &source.name);
    let adopted = match found.is_local {
        true => in_its_place(config, found)?,
        false => import(config, found)?,
    };
    Ok(produced(config, source, request, with_chroma, adopted))
}

/// A snapshot that has its place among this host's.
struct Adopted {
    chosen: Chosen,
    stamp: Stamp,
    metadata: Metadata,
    validation: Validation,
    skipped: Vec<Skipped>,
    notes: BTreeSet<String>,
}

/// Returns the metadata of a valid snapshot, or why it is not valid.
fn checked(config: &Config, chosen: &Chosen) -> Result<(Metadata, Validation), Box<Validation>> {
    let invalid = |code: &str, detail: String| {
        Box::new(Validation {
            errors: vec![code.to_owned()],
            details: vec![detail],
            ..Validation::default()
        })
    };
    let metadata = match Metadata::read(chosen.dir()) {
        Ok(Some(metadata)) => metadata,
        Ok(None) => return Err(invalid("metadata_invalid", "it has no metadata".to_owned())),
        Err(what) => return Err(invalid("metadata_invalid", what)),
    };
    if metadata.valid() == Some(false) {
        let detail = "its own metadata says that it is not valid".to_owned();
        return Err(invalid("metadata_invalid", detail));
    }
    let validation = validate_open(chosen);
    if !validation.valid {
        return Err(Box::new(validation));
    }
    let mut required = config.sources.iter().filter(|source| source.required);
    let is_missing = |to: &str| !chosen.dir().meta(to).is_ok_and(|meta| meta.is_file());
    match required.find(|source| is_missing(&source.to)) {
        Some(source) => Err(invalid(
            &format!("{}_missing", source.name),
            format!("{}: missing", source.to),
        )),
        None => Ok((metadata, validation)),
    }
}

/// Adopts a snapshot that is in this host's snapshots directory. An invalid one is renamed, so that
/// it is never taken for a snapshot.
fn in_its_place(config: &Config, found: FoundSnapshot) -> Result<Adopted, AtoCoreError> {
    let stamp = found.stamp;
    match checked(config, &found.chosen) {
        Ok((metadata, validation)) => Ok(Adopted {
            chosen: found.chosen,
            stamp,
            metadata,
            validation,
            skipped: Vec::new(),
            notes: BTreeSet::new(),
        }),
        Err(validation) => {
            let name = format!("{INVALID}{stamp}");
            let renamed = found
                .parent
                .rename_new(stamp.to_string(), &found.parent, &name);
            let mut details = validation.details;
            details.push(match renamed {
                Ok(()) => format!("it is kept as {}", found.parent.path_of(&name).display()),
                Err(error) => format!("it could not be renamed to {name}: {error}"),
            });
            details.extend(snapshot_dir::bound_invalid(&config.snapshots_dir, stamp));
            Err(AtoCoreError::Invalid {
                stamp,
                errors: validation.errors,
                details,
            })
        }
    }
}

fn invalid(stamp: Stamp, validation: Validation) -> AtoCoreError {
    AtoCoreError::Invalid {
        stamp,
        errors: validation.errors,
        details: validation.details,
    }
}

/// Copies a snapshot that is elsewhere into this host's snapshots directory, under its stamp.
fn import(config: &Config, found: FoundSnapshot) -> Result<Adopted, AtoCoreError> {
    // Before the copy: what is not valid needs no room.
    if let Err(validation) = checked(config, &found.chosen) {
        return Err(found.unadopted(invalid(found.stamp, *validation)));
    }
    copied(config, &found).map_err(|error| found.unadopted(error))
}

/// Copies a valid snapshot, and checks the copy.
fn copied(config: &Config, found: &FoundSnapshot) -> Result<Adopted, AtoCoreError> {
    let stamp = found.stamp;
    let dir = &config.snapshots_dir;
    let cannot = |what: &'static str| {
        move |source: io::Error| AtoCoreError::Io {
            what,
            path: dir.clone(),
            source,
        }
    };
    let pending = PendingSnapshot::create_as(dir, stamp);
    let pending = pending.map_err(cannot("make a snapshot directory in"))?;
    let mut skipped = Vec::new();
    let mut notes = BTreeSet::new();
    let entries = found.chosen.dir().entries();
    for entry in entries.map_err(cannot("copy AtoCore's snapshot to"))? {
        let copied = copy_entry(config, found, &pending, &entry, &mut skipped, &mut notes);
        copied.map_err(|error| {
            cannot("copy AtoCore's snapshot to")(io::Error::other(with_causes(&error)))
        })?;
    }
    let copy = Chosen::of_dir(pending.partial.clone());
    let copy = copy.map_err(cannot("read the copy of AtoCore's snapshot in"))?;
    let (metadata, validation) =
        checked(config, &copy).map_err(|validation| invalid(stamp, *validation))?;
    let published = pending.publish(Validity::Valid).and_then(Chosen::of_dir);
    Ok(Adopted {
        chosen: published.map_err(cannot("put the snapshot in its place in"))?,
        stamp,
        metadata,
        validation,
        skipped,
        notes,
    })
}

/// Copies one entry of AtoCore's directory.
fn copy_entry(
    config: &Config,
    found: &FoundSnapshot,
    pending: &PendingSnapshot,
    entry: &DirEntry,
    skipped: &mut Vec<Skipped>,
    notes: &mut BTreeSet<String>,
) -> Result<(), SourceError> {
    let from = found.chosen.dir();
    let name: &OsStr = &entry.name;
    let to = name.to_string_lossy();
    let unread = |source| SourceError::Io {
        what: "copy",
        path: from.path_of(name),
        source,
    };
    match entry.kind {
        Kind::Dir => {
            let staged = stage_tree::stage(&Job {
                root: &from.sub(name).map_err(unread)?,
                filter: &Filter::everything(),
                snapshot: &pending.partial,
                copy: name,
                to: &to,
                previous: &StagedFiles::default(),
                roots: &roots(config),
                lock_timeout: LOCK_TIMEOUT,
                meter: &CopyMeter::default(),
            })?;
            skipped.extend(staged.skipped);
            notes.extend(staged.notes);
        }
        Kind::File => {
            let copied = plain(
                || from.open_file(name),
                &pending.partial,
                name,
                &CopyMeter::default(),
                || true,
            );
            let copied = copied.map_err(|failure| match failure {
                EntryFailure::Skip(reason) => unread(io::Error::other(reason)),
                EntryFailure::End(error) => unread(error),
            })?;
            let (file, _) = pending.partial.open_file(name).map_err(unread)?;
            let dressed = dress(&file, copied.original(), CopyMtime::Original, notes);
            dressed.map_err(unread)?;
        }
        _ => skipped.push(Skipped {
            path: to.into_owned(),
            reason: "not copied: it is neither a file nor a directory".to_owned(),
        }),
    }
    Ok(())
}

/// Returns the snapshot for the packer, and the report of how it was made.
fn produced(
    config: &Config,
    source: &AtoCoreSource,
    request: &ProduceRequest,
    with_chroma: bool,
    adopted: Adopted,
) -> Produced {
    let Adopted {
        chosen,
        stamp,
        metadata,
        validation,
        skipped,
        notes,
    } = adopted;
    let dir = chosen.path().to_owned();
    let has_chroma = |place: &str| chosen.dir().meta(place).is_ok_and(|meta| meta.is_dir());
    let chroma = config.sources.iter().find(|one| one.is_vector_store());
    let chroma = chroma.filter(|one| with_chroma && !has_chroma(&one.to));
    let left_out = chroma.map(|chroma| LeftOut {
        source: chroma.name.clone(),
        to: chroma.to.clone(),
        errors: vec!["chroma_snapshot_missing".to_owned()],
        cause: format!(
            "AtoCore at {} was asked for it, and its snapshot has none",
            source.url
        ),
        next: "look at AtoCore's log, then back up again".to_owned(),
        kept: None,
    });
    let mut snapshot = described(config, chosen, stamp, &metadata, validation.databases);
    snapshot.tags.clone_from(&request.tags);
    snapshot.note.clone_from(&request.note);
    snapshot.skipped.extend(skipped);
    snapshot
        .skipped
        .extend(left_out.as_ref().map(LeftOut::skipped));
    snapshot.left_out.extend(left_out);
    let mut metadata = metadata.value;
    metadata["stamp"] = stamp.to_string().into();
    metadata["backup_root"] = dir.display().to_string().into();
    Produced {
        snapshot,
        dir,
        metadata,
        notes: notes.into_iter().collect(),
        warnings: Vec::new(),
        took: Vec::new(),
    }
}
