//! Publishes a packed snapshot in the spool: table pages, signature, manifest.

use super::error::PackError;
use super::history;
use super::request::PackRequest;
use crate::base::ids::{Hash, ObjectKey};
use crate::format::archive_table::{ArchiveRow, paginate};
use crate::format::known::KnownRef;
use crate::format::manifest::{IndexRef, Manifest, ManifestCore, Totals, with_wide_times};
use crate::format::signature::MANIFEST_NAMESPACE;
use crate::format::version::FORMAT;
use crate::state::catalog::{Catalog, SnapshotOrigin};
use crate::state::spool::Spool;

/// What a manifest says about the archives of its snapshot.
pub(super) struct SnapshotContents {
    /// The archives that the snapshot needs.
    pub(super) rows: Vec<ArchiveRow>,
    pub(super) index: IndexRef,
    /// Sizes of the snapshot, except of the archives.
    pub(super) totals: Totals,
    /// Whether a time in the index is beyond 64 bits.
    pub(super) has_wide_times: bool,
}

/// A manifest that is in the spool.
pub(super) struct PublishedManifest {
    pub(super) manifest: Manifest,
    /// Name and bytes of the pages of earlier snapshots, and of directories of them.
    pub(super) known: Vec<(Hash, Vec<u8>)>,
}

/// Publishes the manifest of `contents`, and records the snapshot in the catalog. All archives must
/// be in the spool.
pub(super) fn publish_in_spool(
    request: &PackRequest<'_>,
    catalog: &mut Catalog,
    spool: &Spool,
    contents: SnapshotContents,
) -> Result<PublishedManifest, PackError> {
    let sets = catalog.recipient_sets()?;
    let paged = history::page(&request.lineage, catalog, spool)?;
    let mut totals = contents.totals;
    totals.archives = contents.rows.len() as u64;
    totals.archive_bytes = contents.rows.iter().map(|row| row.bytes).sum();
    let pages = paginate(contents.rows, &sets);
    for (hash, bytes) in &pages {
        spool.put(&ObjectKey::table(hash), bytes)?;
    }
    let pages = pages.iter().map(|(hash, _)| *hash).collect();
    let known = KnownRef::Pages(paged.named);
    let core = ManifestCore {
        format: FORMAT,
        requires: match contents.has_wide_times {
            true => with_wide_times(known.requires()),
            false => known.requires(),
        },
        host: request.host.clone(),
        stamp: request.snapshot.stamp,
        sequence: request.lineage.sequence,
        parents: request.lineage.parents.clone(),
        writer: catalog.writer(),
        machine: request.machine.clone(),
        known,
        marks_seen: request.lineage.marks_seen.clone(),
        next_by: request.next_by,
        recipients: request.recipients.texts().to_vec(),
        index: contents.index,
        totals,
        next_signer: request.next_signer.clone(),
    };
    let manifest = Manifest::new(core, pages);
    sign_and_publish(request, catalog, spool, &manifest)?;
    Ok(PublishedManifest {
        manifest,
        known: paged.objects,
    })
}

/// Puts signature and manifest into the spool, in this order, and records the snapshot.
fn sign_and_publish(
    request: &PackRequest<'_>,
    catalog: &Catalog,
    spool: &Spool,
    manifest: &Manifest,
) -> Result<(), PackError> {
    let name = manifest.name();
    let signature = request.signer.sign(MANIFEST_NAMESPACE, &manifest.bytes);
    let signature = signature.map_err(PackError::Sign)?;
    spool.put(&name.signature_key(), signature.as_bytes())?;
    spool.put(&name.key(), &manifest.bytes)?;
    Ok(catalog.add_snapshot(manifest, SnapshotOrigin::MadeHere)?)
}
