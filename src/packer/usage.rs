//! How much of each archive a snapshot uses.

use std::collections::{BTreeMap, HashMap};

use crate::base::ids::{ArchiveId, Hash};
use crate::format::archive::tar_member::{BLOCK_BYTES, padding};
use crate::format::archive_table::ArchiveRow;
use crate::format::extent::Extent;
use crate::state::catalog::CatalogArchive;

/// An archive that this snapshot may name.
#[derive(Debug, Clone)]
pub(super) struct UsableArchive {
    /// The catalog's number of it; `None` until it is committed to the catalog.
    pub(super) number: Option<i64>,
    pub(super) row: ArchiveRow,
    /// Bytes of its uncompressed tar stream.
    pub(super) tar_bytes: u64,
    /// BLAKE3 of its uncompressed tar stream.
    pub(super) tar_blake3: Hash,
}

impl From<CatalogArchive> for UsableArchive {
    fn from(archive: CatalogArchive) -> Self {
        Self {
            number: Some(archive.n),
            row: archive.row,
            tar_bytes: archive.tar_bytes,
            tar_blake3: archive.tar_blake3,
        }
    }
}

/// Returns the archives that hold `extents`, and the bytes of each one's tar stream that they use.
/// Header and padding count, or an archive of small files would look mostly dead.
pub(super) fn uses(extents: &[Extent]) -> Vec<(ArchiveId, u64)> {
    let mut uses = BTreeMap::new();
    for extent in extents {
        if let Some(id) = extent.archive {
            let member_bytes = BLOCK_BYTES + padding(extent.length);
            *uses.entry(id).or_insert(0) += extent.length + member_bytes as u64;
        }
    }
    uses.into_iter().collect()
}

/// Bytes of tar stream that the snapshot uses, by archive.
#[derive(Debug, Default)]
pub(super) struct Usage {
    live_bytes: HashMap<ArchiveId, u64>,
}

impl Usage {
    pub(super) fn add(&mut self, uses: &[(ArchiveId, u64)]) {
        for (id, bytes) in uses {
            *self.live_bytes.entry(*id).or_default() += bytes;
        }
    }

    /// The archives that are used, and the bytes used of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ArchiveId, u64)> {
        self.live_bytes.iter().map(|(id, bytes)| (id, *bytes))
    }
}
