//! The newest snapshot of a push, and the snapshots that a target waits for.

use crate::format::manifest::ManifestName;
use crate::packer::Packed;
use crate::state::catalog::{Catalog, CatalogError, SnapshotRow};

/// The newest snapshot.
pub(in crate::jobs::push) enum PushedSnapshot<'a> {
    /// This push packed it.
    Packed(&'a Packed),
    /// An earlier push did; only what the spool has is published.
    Spooled(ManifestName),
}

impl PushedSnapshot<'_> {
    pub(super) fn name(&self) -> ManifestName {
        match self {
            Self::Packed(packed) => packed.manifest.name(),
            Self::Spooled(name) => name.clone(),
        }
    }

    pub(super) fn packed(&self) -> Option<&Packed> {
        match self {
            Self::Packed(packed) => Some(packed),
            Self::Spooled(_) => None,
        }
    }
}

/// Returns the snapshots that `target` waits for, oldest first: those after the newest one that it
/// has.
pub(in crate::jobs) fn waiting_snapshots(
    catalog: &Catalog,
    target: &str,
) -> Result<Vec<ManifestName>, CatalogError> {
    let publications = catalog.publications(target)?;
    let last = catalog.last_published(target)?;
    let last = last.map_or(0, |known| known.sequence);
    let rows = catalog.snapshots()?;
    let waits = |row: &&SnapshotRow| {
        row.known.sequence > last && !publications.contains_key(&row.known.core)
    };
    Ok(rows
        .iter()
        .filter(waits)
        .map(|row| row.name.clone())
        .collect())
}
