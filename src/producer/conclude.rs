//! The end of a snapshot: its metadata, the copies that failed their check, and the result for the
//! packer.

use std::path::Path;

use super::ProduceRequest;
use super::backup_metadata::{self, Document, SourceEntry, Validation, left_out, records};
use super::error::{ProduceError, failed, next_for_invalid};
use super::snapshot_dir::{self, PendingSnapshot, Validity};
use super::snapshot_path::snapshot_path;
use super::source_roots::{roots, staged_part};
use super::taken_source::TakenSource;
use super::validate::Findings;
use crate::base::ids::Stamp;
use crate::base::openat::Chosen;
use crate::config::Config;
use crate::format::index::{Skipped, ValidationRecord};
use crate::state::staged_snapshot::{LeftOut, StagedSnapshot};

/// Whether there is no snapshot: a required source is not valid, or no source is.
pub(super) fn is_lost(taken: &[TakenSource], found: &[Findings]) -> bool {
    let is_valid = |found: &Findings| found.errors.is_empty();
    let mut both = taken.iter().zip(found);
    let is_required_lost = both.any(|(one, found)| one.entry.required && !is_valid(found));
    let mut both = taken.iter().zip(found);
    let is_any_sound = both.any(|(one, found)| one.entry.present && is_valid(found));
    let is_any_invalid = !found.iter().all(is_valid);
    is_required_lost || (is_any_invalid && !is_any_sound)
}

/// Keeps the whole snapshot aside as an invalid one. Returns the error to report.
pub(super) fn give_up(
    config: &Config,
    request: &ProduceRequest,
    pending: PendingSnapshot,
    taken: Vec<TakenSource>,
    found: Vec<Findings>,
) -> Result<ProduceError, ProduceError> {
    let snapshots_dir = config.snapshots_dir.as_path();
    let metadata = describe(config, request, &pending, &taken, found, Validity::Invalid);
    let written = metadata.write(&pending.partial);
    written.map_err(failed("write the metadata of", pending.partial.path()))?;
    let stamp = pending.stamp;
    let published = pending.publish(Validity::Invalid);
    let dir = published.map_err(failed("keep the invalid snapshot in", snapshots_dir))?;
    let deleted = snapshot_dir::bound_invalid(snapshots_dir, stamp);
    // A damaged copy would be linked into every later snapshot.
    for one in &taken {
        one.require_full_copy();
    }
    let left_out = taken.iter().filter_map(|one| one.entry.left_out.as_ref());
    let reasons = left_out.map(LeftOut::reason);
    let validation = metadata.sealift.validation;
    Ok(ProduceError::Invalid {
        dir: dir.path().to_owned(),
        errors: validation.errors,
        details: [validation.details, reasons.collect(), deleted].concat(),
    })
}

/// Leaves out a source whose copy is not valid, and keeps the copy aside. Returns a note if that
/// fails.
pub(super) fn set_aside(
    pending: &mut PendingSnapshot,
    one: &mut TakenSource,
    found: Findings,
) -> Option<String> {
    one.require_full_copy();
    let at = snapshot_path(&one.entry.to);
    let (kept, note) = match pending.set_aside(&at) {
        Ok(kept) => (Some(kept.display().to_string()), None),
        Err(error) => {
            let discarded = pending.discard(&at).err();
            let why = discarded.map_or(String::new(), |error| format!("; nor removed: {error}"));
            let name = &one.entry.name;
            let note = format!("the invalid copy of {name:?} could not be kept: {error}{why}");
            (None, Some(note))
        }
    };
    let next = next_for_invalid(&one.entry.kind).to_owned();
    one.leave_out(found.errors, found.details.join("; "), next, kept);
    note
}

/// Writes the metadata of the copies that are kept aside: they are an invalid snapshot of their
/// own.
pub(super) fn write_aside(
    config: &Config,
    request: &ProduceRequest,
    pending: &PendingSnapshot,
    taken: &[TakenSource],
) -> Result<(), ProduceError> {
    let Some(aside) = pending.aside() else {
        return Ok(());
    };
    let mut kept = Vec::new();
    let mut validation = Validation::default();
    for one in taken {
        let Some(left_out) = one.entry.left_out.as_ref().filter(|one| one.kept.is_some()) else {
            continue;
        };
        validation.errors.extend(left_out.errors.iter().cloned());
        validation.details.push(left_out.cause.clone());
        kept.push(SourceEntry {
            present: true,
            left_out: None,
            ..one.entry.clone()
        });
    }
    let dir = pending.destination(Validity::Invalid);
    let about = about(config, request, pending, &dir);
    let document = Document::new(&about, kept, &validation, Vec::new());
    let written = document.write(aside).map(drop);
    written.map_err(failed("write the metadata of", aside.path()))
}

/// Returns the metadata of the sources that were taken and of the findings in their copies.
pub(super) fn describe(
    config: &Config,
    request: &ProduceRequest,
    pending: &PendingSnapshot,
    taken: &[TakenSource],
    found: Vec<Findings>,
    validity: Validity,
) -> Document {
    let entries: Vec<SourceEntry> = taken.iter().map(|one| one.entry.clone()).collect();
    let left_out = entries.iter().filter_map(|entry| entry.left_out.as_ref());
    let mut skipped: Vec<Skipped> = left_out.map(LeftOut::skipped).collect();
    skipped.extend(taken.iter().flat_map(|one| one.skipped.iter().cloned()));
    let mut all = Findings::default();
    for one in found {
        all.append(one);
    }
    skipped.append(&mut all.reports);
    let dir = pending.destination(validity);
    let about = about(config, request, pending, &dir);
    Document::new(&about, entries, &all.finish(), skipped)
}

pub(super) fn about<'a>(
    config: &'a Config,
    request: &'a ProduceRequest,
    pending: &PendingSnapshot,
    dir: &'a Path,
) -> backup_metadata::About<'a> {
    backup_metadata::About {
        host: config.host.as_str(),
        stamp: pending.stamp,
        created_at: request.now,
        dir,
        tags: &request.tags,
        note: request.note.as_deref(),
    }
}

/// Assembles the value that the packer takes.
pub(super) fn assemble(
    config: &Config,
    metadata: Document,
    dir: Chosen,
    stamp: Stamp,
    taken: Vec<TakenSource>,
) -> StagedSnapshot {
    let about = metadata.sealift;
    let mut parts = vec![staged_part(dir)];
    parts.extend(taken.into_iter().filter_map(|one| one.part));
    StagedSnapshot {
        stamp,
        parts,
        roots: roots(config),
        tags: about.tags,
        note: about.note,
        sources: records(&about.sources),
        validation: ValidationRecord {
            valid: about.validation.valid,
            checked_at: about.validation.checked_at,
            errors: about.validation.errors,
        },
        databases: about.databases,
        left_out: left_out(&about.sources),
        skipped: about.skipped,
    }
}
