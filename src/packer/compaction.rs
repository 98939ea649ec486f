//! Decides which archives a new snapshot still uses, and which it packs again.
//!
//! A restore reads whole archives. So an archive of which little is in use is packed again, and
//! retention deletes it once no manifest names it.

use std::collections::HashSet;

use super::usage::UsableArchive;
use crate::format::archive_table::ArchiveKind;
use crate::state::catalog::CatalogArchive;

/// A data archive is packed again if less than this share of its stream is live.
const COMPACT_BELOW_PERCENT: u64 = 25;
/// All data archives together may hold this many percent of their live bytes; beyond that, those
/// with the smallest live share are packed again. This bounds how much a restore reads in vain.
const COMPACT_ABOVE_PERCENT: u64 = 125;
/// If a snapshot uses more index archives than this, the index is packed again.
const MAX_INDEX_ARCHIVES: usize = 24;

/// Splits the usable archives: those to use, and the catalog's numbers of the data archives to pack
/// again.
pub(super) fn worth_using(usable: &[CatalogArchive]) -> (Vec<UsableArchive>, HashSet<i64>) {
    let index_in_use = |archive: &&CatalogArchive| {
        archive.row.kind == ArchiveKind::Index && archive.live_bytes != Some(0)
    };
    let renew_index = usable.iter().filter(index_in_use).count() > MAX_INDEX_ARCHIVES;
    let retired: HashSet<i64> = mostly_dead(usable).into_iter().collect();
    let is_kept = |archive: &&CatalogArchive| match archive.row.kind {
        ArchiveKind::Index => !renew_index,
        ArchiveKind::Data => !retired.contains(&archive.n),
    };
    let kept = usable.iter().filter(is_kept).cloned();
    (kept.map(UsableArchive::from).collect(), retired)
}

/// Returns the numbers of the data archives to pack again: each that is below
/// [`COMPACT_BELOW_PERCENT`], and those with the smallest live share until all others together are
/// within [`COMPACT_ABOVE_PERCENT`].
fn mostly_dead(usable: &[CatalogArchive]) -> Vec<i64> {
    let share = |(_, live, tar): &(i64, u64, u64)| *live as f64 / (*tar).max(1) as f64;
    let mut data: Vec<(i64, u64, u64)> = usable
        .iter()
        .filter(|archive| archive.row.kind == ArchiveKind::Data)
        .filter_map(|archive| {
            let live = archive.live_bytes?.min(archive.tar_bytes);
            Some((archive.n, live, archive.tar_bytes))
        })
        .collect();
    data.sort_by(|a, b| share(a).total_cmp(&share(b)));
    let live_bytes: u64 = data.iter().map(|(_, live, _)| live).sum();
    let mut held_bytes: u64 = data.iter().map(|(_, _, tar)| tar).sum();
    let mut retired = Vec::new();
    for (number, live, tar) in data {
        let alone = live * 100 < tar * COMPACT_BELOW_PERCENT;
        let together = held_bytes * 100 > live_bytes * COMPACT_ABOVE_PERCENT;
        if !alone && !together {
            break;
        }
        // Its live bytes move to a new archive, which is all live.
        held_bytes -= tar - live;
        retired.push(number);
    }
    retired
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ArchiveId, Hash, WriterId};
    use crate::format::archive_table::ArchiveRow;

    fn archive(n: i64, kind: ArchiveKind, live: Option<u64>) -> CatalogArchive {
        CatalogArchive {
            n,
            row: ArchiveRow {
                id: ArchiveId {
                    writer: WriterId([0; 8]),
                    counter: n as u64,
                },
                kind,
                blake3: Hash([0; 32]),
                sha256: Hash([0; 32]),
                bytes: 50,
                recipient_set: String::new(),
                head_sha256: Hash([0; 32]),
            },
            tar_bytes: 100,
            tar_blake3: Hash([0; 32]),
            live_bytes: live,
        }
    }

    fn retired(shares: &[u64]) -> Vec<i64> {
        let data = shares.iter().zip(0..);
        let data = data.map(|(live, n)| archive(n, ArchiveKind::Data, Some(*live)));
        // Archives that no snapshot used yet, and those of the index, are left alone.
        let others = [
            archive(100, ArchiveKind::Data, None),
            archive(101, ArchiveKind::Index, Some(1)),
        ];
        mostly_dead(&data.chain(others).collect::<Vec<_>>())
    }

    #[test]
    fn archives_with_the_smallest_live_share_are_packed_again_until_a_restore_reads_little_in_vain()
    {
        assert_eq!(retired(&[]), [0; 0]);
        assert_eq!(retired(&[100, 100, 81, 80]), [0; 0]);
        // One with a tiny live share goes even if all together are within the bound.
        assert_eq!(retired(&[100, 100, 100, 100, 100, 100, 24]), [6]);
        assert_eq!(retired(&[100, 100, 100, 100, 100, 100, 25]), [0; 0]);
        // None is far below: 400 bytes hold 280 live ones, until 300 hold 260.
        assert_eq!(retired(&[70, 60, 80, 70]), [1, 0]);
        // A live share above 100 % counts as 100 %.
        assert_eq!(retired(&[900, 50, 50]), [1]);
    }
}
