//! Makes the pages that name the earlier snapshots.
//!
//! The catalog records which manifest first had exactly a group's rows ([`Made`]), and after which
//! manifest it recorded that. If the newest snapshot is another one (the catalog was lost or set
//! back, or an older program wrote in between), every page is made again under this manifest's
//! number. So no page that fell out of use comes back, on which `prune` relies. For the same reason
//! the record is written before the manifest.
//!
//! Each run makes all pages from the rows, but puts only those into the spool that a target may
//! lack.

use std::collections::{HashMap, HashSet};

use super::error::PackError;
use super::request::Lineage;
use crate::base::ids::{Hash, ObjectKey};
use crate::format::known::{
    Known, MAX_DIRECTORIES, MAX_KNOWN_PAGES, Made, Paged, ROWS_PER_KNOWN_PAGE, group_of,
    paginate_known,
};
use crate::state::catalog::{Catalog, KnownGroup};
use crate::state::spool::Spool;

/// Returns the pages for `lineage`, and puts those into the spool that a target may lack.
pub(super) fn page(
    lineage: &Lineage,
    catalog: &mut Catalog,
    spool: &Spool,
) -> Result<Paged, PackError> {
    let now: Made = (catalog.writer(), lineage.sequence);
    let remembered = catalog.known_groups(lineage.sequence)?;
    let remembered: HashMap<u64, KnownGroup> = remembered
        .into_iter()
        .map(|group| (group.number, group))
        .collect();
    let made = |number: u64, rows: Hash| -> Made {
        let before = remembered.get(&number);
        let before = before.filter(|group| group.rows == rows && group.made.0 == now.0);
        before.map_or(now, |group| group.made)
    };
    let groups = lineage.known.chunk_by(|a, b| group_of(a) == group_of(b));
    let groups = groups.map(|rows| {
        let (number, rows) = (group_of(&rows[0]), hash(rows));
        let made = made(number, rows);
        KnownGroup { number, rows, made }
    });
    let groups: Vec<KnownGroup> = groups.collect();
    let by_number = groups.iter().map(|group| (group.number, group.made));
    let by_number: HashMap<u64, Made> = by_number.collect();
    let paged = paginate_known(&lineage.known, |number, _| {
        by_number.get(&number).copied().unwrap_or(now)
    });
    let most_pages = groups.len() + lineage.known.len() / ROWS_PER_KNOWN_PAGE;
    if most_pages > MAX_KNOWN_PAGES || paged.named.directories.len() > MAX_DIRECTORIES {
        return Err(PackError::TooManyKnown);
    }
    catalog.set_known_groups(lineage.sequence, &groups)?;
    let old: HashSet<Made> = match lineage.before_is_everywhere {
        true => groups
            .iter()
            .map(|group| group.made)
            .filter(|made| *made != now)
            .collect(),
        false => HashSet::new(),
    };
    for ((name, bytes), made) in paged.objects.iter().zip(&paged.made) {
        if made.is_some_and(|made| old.contains(&made)) {
            continue;
        }
        let key = ObjectKey::table(name);
        let is_spooled = spool.contains(&key) && spool.read(&key)? == *bytes;
        if !is_spooled {
            spool.put(&key, bytes)?;
        }
    }
    Ok(paged)
}

/// Returns the hash by which the catalog recognizes a group of rows.
fn hash(rows: &[Known]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        hasher.update(&row.sequence.to_le_bytes());
        hasher.update(&row.stamp.time().timestamp().to_le_bytes());
        hasher.update(&row.core.0);
    }
    Hash(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::known::KnownPage;

    struct Host {
        catalog: Catalog,
        spool: Spool,
        _dir: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                catalog: Catalog::open(&dir.path().join("catalog.db")).unwrap(),
                spool: Spool::open(&dir.path().join("spool")).unwrap(),
                _dir: dir,
            }
        }

        /// Returns the names of the pages of snapshot `sequence` after the snapshots `known`.
        fn page(&mut self, sequence: u64, known: &[u64]) -> Vec<Hash> {
            self.page_for(sequence, known, false)
        }

        fn page_for(&mut self, sequence: u64, known: &[u64], everywhere: bool) -> Vec<Hash> {
            let known = known.iter().map(|n| Known {
                sequence: *n,
                stamp: "20260407T060000Z".parse().unwrap(),
                core: Hash::sha256(&n.to_le_bytes()),
            });
            let lineage = Lineage {
                sequence,
                parents: Vec::new(),
                known: known.collect(),
                marks_seen: Vec::new(),
                before_is_everywhere: everywhere,
            };
            let paged = page(&lineage, &mut self.catalog, &self.spool).unwrap();
            paged.named.pages
        }
    }

    #[test]
    fn an_unchanged_group_keeps_its_page_and_one_that_comes_back_gets_another() {
        let mut host = Host::new();
        let first = host.page(70, &[1, 2, 66]);
        let second = host.page(71, &[1, 2, 66, 70]);
        assert_eq!(first[0], second[0]);
        assert_ne!(first[1], second[1]);
        let without = host.page(72, &[1, 66, 70]);
        let again = host.page(73, &[1, 2, 66, 70]);
        assert!(!again.contains(&first[0]) && !again.contains(&without[0]));
        assert_eq!(again[1], second[1]);
        // A run that died before its manifest, and the same one again.
        assert_eq!(host.page(73, &[1, 2, 66, 70]), again);
    }

    #[test]
    fn records_after_another_manifest_do_not_count() {
        let mut host = Host::new();
        let first = host.page(70, &[1, 2]);
        let skipped = host.page(72, &[1, 2]);
        assert_ne!(first, skipped);
        host.catalog.renew_writer().unwrap();
        assert_ne!(host.page(73, &[1, 2]), skipped);
    }

    #[test]
    fn a_page_that_every_target_has_is_not_spooled_again() {
        let mut host = Host::new();
        host.page(70, &[1, 2, 66]);
        for key in host.spool.list(crate::base::ids::TABLES).unwrap() {
            host.spool.remove(&key.0).unwrap();
        }
        let [old, new] = host.page_for(71, &[1, 2, 66, 70], true)[..] else {
            panic!("two pages");
        };
        assert!(!host.spool.contains(&ObjectKey::table(&old)));
        assert!(host.spool.contains(&ObjectKey::table(&new)));
        host.page_for(72, &[1, 2, 66, 70, 71], false);
        assert!(host.spool.contains(&ObjectKey::table(&old)));
    }

    #[test]
    fn a_damaged_page_in_the_spool_is_written_again() {
        let mut host = Host::new();
        let [name] = host.page(70, &[1, 2])[..] else {
            panic!("one page");
        };
        let key = ObjectKey::table(&name);
        std::fs::write(host.spool.path(&key), b"damaged").unwrap();
        host.page(71, &[1, 2]);
        assert!(KnownPage::parse(&host.spool.read(&key).unwrap()).is_ok());
    }
}
