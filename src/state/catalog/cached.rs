//! Keeps rows that a run reads often in memory until the catalog changes.
//!
//! A push reads all snapshots and archives in many places, and there may be thousands of each. The
//! rows in memory are valid for one version of the database file, which another connection's commit
//! ends; each statement of this connection that changes such rows calls [`Cached::forget`] first,
//! or [`Cached::change`] after it.

use std::cell::RefCell;

/// Rows, and the version of the database for which they are valid; `None`: nothing is in memory.
#[derive(Debug)]
pub(super) struct Cached<T>(RefCell<Option<(i64, T)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T: Clone> Cached<T> {
    /// Returns the rows for `version`; calls `read` if they are not in memory, and keeps its
    /// result.
    pub(crate) fn get<E>(&self, version: i64, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if let Some((kept, rows)) = &*self.0.borrow()
            && *kept == version
        {
            return Ok(rows.clone());
        }
        let rows = read()?;
        self.0.replace(Some((version, rows.clone())));
        Ok(rows)
    }

    /// Returns the result of `look` on the rows, of whatever version they are; `None` if none are
    /// kept.
    pub(crate) fn peek<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.borrow().as_ref().map(|(_, rows)| look(rows))
    }

    /// Changes the rows, if any are kept, in the way in which the database was changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        if let Some((_, rows)) = &mut *self.0.borrow_mut() {
            change(rows);
        }
    }

    /// Makes the rows valid for `version`: what was committed since changed no such row.
    pub(crate) fn keep_for(&self, version: i64) {
        if let Some((kept, _)) = &mut *self.0.borrow_mut() {
            *kept = version;
        }
    }

    /// Drops the rows.
    pub(crate) fn forget(&self) {
        self.0.take();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Catalog, NewArchive, PublicationState};
    use crate::base::ids::{ArchiveId, Hash};
    use crate::format::manifest::{ArchiveKind, ArchiveRow};

    fn archive(catalog: &Catalog, counter: u8) -> NewArchive {
        let hash = Hash([counter; 32]);
        let row = ArchiveRow {
            id: ArchiveId {
                writer: catalog.writer(),
                counter: counter.into(),
            },
            kind: ArchiveKind::Data,
            blake3: hash,
            sha256: hash,
            bytes: 1000,
            recipient_set: "0123456789abcdef".to_owned(),
            head_sha256: hash,
        };
        NewArchive {
            row,
            tar_bytes: 10_000,
            tar_blake3: hash,
        }
    }

    /// Kind: rows in memory are used after they changed.
    #[test]
    fn every_change_ends_the_rows_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let known = |catalog: &Catalog| -> Vec<u64> {
            let archives = catalog.archives().unwrap();
            let mut counters: Vec<u64> = archives.iter().map(|a| a.row.id.counter).collect();
            counters.sort();
            counters
        };
        assert_eq!(known(&catalog), [0; 0]);
        let first = archive(&catalog, 1);
        let n = catalog.commit_archives(&[first], &[]).unwrap()[0];
        assert_eq!(known(&catalog), [1]);
        // By another connection.
        let second = archive(&catalog, 2);
        let mut recorder = catalog.recorder().unwrap();
        recorder.commit_archives(&[second], &[]).unwrap();
        assert_eq!(known(&catalog), [1, 2]);
        let third = archive(&catalog, 3);
        catalog.learn_archives(&[third]).unwrap();
        assert_eq!(known(&catalog), [1, 2, 3]);
        catalog.set_live_bytes(&[(n, 7)].into()).unwrap();
        let live: u64 = catalog
            .archives()
            .unwrap()
            .iter()
            .filter_map(|a| a.live_bytes)
            .sum();
        assert_eq!(live, 7);
        catalog.forget_archives(&[n].into()).unwrap();
        assert_eq!(known(&catalog), [2, 3]);

        let now = crate::base::clock::now();
        let core = Hash([9; 32]);
        for state in [PublicationState::Published, PublicationState::Lost] {
            catalog.set_publication("here", &core, state, now).unwrap();
            let states = catalog.publications("here").unwrap();
            assert_eq!(states.get(&core), Some(&state));
        }
        assert!(catalog.publications("there").unwrap().is_empty());
        catalog.forget_publications("here").unwrap();
        assert!(catalog.publications("here").unwrap().is_empty());
    }

    #[test]
    fn single_questions_are_answered_as_by_all_rows() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let both = [archive(&catalog, 1), archive(&catalog, 2)];
        let n = catalog.commit_archives(&both, &[]).unwrap();
        catalog.add_placements("here", [n[0]]).unwrap();
        let asked = [1, 2, 3].map(|byte| Hash([byte; 32]));
        let numbers = catalog.archive_numbers(asked).unwrap();
        let expected = [(asked[0], n[0]), (asked[1], n[1])];
        assert_eq!(numbers, expected.into());
        for (n, target, is_placed) in [(n[0], "here", true), (n[1], "here", false)] {
            assert_eq!(catalog.is_placed(target, n).unwrap(), is_placed);
        }
        assert!(!catalog.is_placed("there", n[0]).unwrap());
    }
}
