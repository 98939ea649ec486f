//! Sizes of this host's backups as its catalog knows them. No target is asked.

use super::growth::growth;
use super::{ClassSize, Ratios, SnapshotSizes, StatsSource, StoredBackups, StoredClasses};
use crate::config::{Config, TargetConfig};
use crate::format::manifest::ArchiveKind;
use crate::jobs::error::JobError;
use crate::state::catalog::{Catalog, CatalogArchive, PublicationState};
use crate::storage::TargetSpec;

/// Returns what `catalog` knows of `target`.
pub(super) fn of_target(
    config: &Config,
    catalog: &Catalog,
    target: &TargetConfig,
) -> Result<StoredBackups, JobError> {
    let snapshots = published(catalog, &target.name)?;
    let placed = catalog.placed_on(&target.name)?;
    let archives = catalog.archives()?;
    let archives = || archives.iter().filter(|one| placed.contains(&one.n));
    let mut stored = StoredClasses::default();
    let mut content_bytes = 0;
    for archive in archives() {
        match archive.row.kind {
            ArchiveKind::Data => {
                stored.data_archives.add(archive.row.bytes);
                content_bytes += archive.tar_bytes;
            }
            ArchiveKind::Index => stored.index_archives.add(archive.row.bytes),
        }
    }
    stored.sum_up();
    let bytes = snapshots.iter().map(|one| one.bytes).sum();
    let (growth_unit, growth) = growth(&snapshots);
    let name = &target.name;
    let measures = format!("`sealift stats --target {name}` measures them");
    let mut unknown = vec![format!(
        "unique and stored bytes of each snapshot, manifests and tables: {measures}"
    )];
    if target.write_only {
        unknown = vec![
            "unique and stored bytes of each snapshot, manifests and tables, since this host can only write there: \
             `sealift stats --from URL` on a machine that may read it measures them"
                .to_owned(),
        ];
    }
    Ok(StoredBackups {
        target: format!("{name} ({})", TargetSpec::from_url(&target.url).label()),
        host: config.host.clone(),
        source: StatsSource::Catalog,
        bytes,
        older_only_bytes: older_only(catalog, &snapshots, archives())?,
        ratios: Ratios::of(bytes, Some(content_bytes), stored.data_archives.bytes),
        stored,
        growth_unit,
        growth,
        snapshots,
        unknown,
        findings: Vec::new(),
    })
}

/// Returns the snapshots that `target` holds, by sequence.
fn published(catalog: &Catalog, target: &str) -> Result<Vec<SnapshotSizes>, JobError> {
    let states = catalog.publications(target)?;
    let rows = catalog.snapshots()?;
    let is_there = |core| states.get(core) == Some(&PublicationState::Published);
    let there = rows.iter().filter(|row| is_there(&row.known.core));
    let sizes = there.map(|row| SnapshotSizes {
        stamp: row.known.stamp,
        sequence: row.known.sequence,
        bytes: row.bytes,
        new_bytes: row.new_bytes,
        unique_bytes: None,
        stored_bytes: None,
    });
    Ok(sizes.collect())
}

/// Returns the bytes of those of the `placed` archives that the newest snapshot does not need.
/// `None`: the target lacks the newest snapshot, or the catalog does not know what that needs.
fn older_only<'a>(
    catalog: &Catalog,
    there: &[SnapshotSizes],
    placed: impl Iterator<Item = &'a CatalogArchive>,
) -> Result<Option<u64>, JobError> {
    let rows = catalog.snapshots()?;
    let newest = rows.last().map(|row| row.known.sequence);
    let needed = catalog.archives_in_use()?;
    if needed.is_empty() || there.last().map(|one| one.sequence) != newest {
        return Ok(None);
    }
    let needed: std::collections::HashSet<i64> = needed.iter().map(|one| one.n).collect();
    let mut older = ClassSize::default();
    placed
        .filter(|one| !needed.contains(&one.n))
        .for_each(|one| older.add(one.row.bytes));
    Ok(Some(older.bytes))
}
