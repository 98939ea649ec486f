//! Small sets of hashes that a run leaves for the next one.
//!
//! Each hash is a row of the catalog's `hash_sets` table. Until version 2 of the catalog, each set
//! was one value in the `meta` table.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::{Catalog, CatalogError};
use crate::base::ids::Hash;

/// A set of hashes in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashSetKey {
    DamagedCopies,
    AdoptedHeads,
    UnusableArchives,
}

impl HashSetKey {
    const ALL: [Self; 3] = [
        Self::DamagedCopies,
        Self::AdoptedHeads,
        Self::UnusableArchives,
    ];

    /// The set's name in the table.
    fn name(self) -> &'static str {
        match self {
            Self::DamagedCopies => "damaged_copies",
            Self::AdoptedHeads => "adopted_heads",
            Self::UnusableArchives => "unusable_archives",
        }
    }

    /// The key that the set had in `meta` until version 2: the value is the hashes in hex,
    /// separated by spaces.
    fn key_in_meta(self) -> &'static str {
        match self {
            Self::DamagedCopies => "damaged on a donor",
            Self::AdoptedHeads => "adopted",
            Self::UnusableArchives => "unusable archives",
        }
    }
}

/// Moves the sets of an earlier version into the table.
pub(super) fn take_over(db: &Connection) -> rusqlite::Result<()> {
    for key in HashSetKey::ALL {
        let mut query = db.prepare("SELECT value FROM meta WHERE key=?1")?;
        let texts = query.query_map([key.key_in_meta()], |row| row.get::<_, String>(0))?;
        for text in texts {
            // What is not a hash is ignored, as those versions did.
            let hashes = text?;
            for hash in hashes
                .split(' ')
                .filter_map(|hash| hash.parse::<Hash>().ok())
            {
                insert(db, key, &hash)?;
            }
        }
        db.execute("DELETE FROM meta WHERE key=?1", [key.key_in_meta()])?;
    }
    Ok(())
}

fn insert(db: &Connection, key: HashSetKey, hash: &Hash) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO hash_sets VALUES(?1,?2)";
    db.execute(sql, params![key.name(), &hash.0[..]]).map(drop)
}

impl Catalog {
    /// Returns the archives that were damaged on a target from which they should have been copied.
    pub fn damaged_copies(&self) -> Result<HashSet<Hash>, CatalogError> {
        self.hash_set(HashSetKey::DamagedCopies)
    }

    /// Adds to [`Self::damaged_copies`].
    pub fn add_damaged_copies(
        &self,
        archives: impl IntoIterator<Item = Hash>,
    ) -> Result<(), CatalogError> {
        self.add_to_hash_set(HashSetKey::DamagedCopies, archives)
    }

    /// Returns the core hashes of heads of other machines that the operator accepted as this host's
    /// own past.
    pub fn adopted_heads(&self) -> Result<HashSet<Hash>, CatalogError> {
        self.hash_set(HashSetKey::AdoptedHeads)
    }

    /// Adds to [`Self::adopted_heads`].
    pub fn add_adopted_heads(
        &self,
        cores: impl IntoIterator<Item = Hash>,
    ) -> Result<(), CatalogError> {
        self.add_to_hash_set(HashSetKey::AdoptedHeads, cores)
    }

    /// Returns the archives that no new snapshot may use, on whatever target they are: a target
    /// holds a damaged copy, and no sound copy to repair it with was found.
    pub fn unusable(&self) -> Result<HashSet<Hash>, CatalogError> {
        self.hash_set(HashSetKey::UnusableArchives)
    }

    /// Makes the next push store the content of `archive` again.
    pub fn mark_unusable(&self, archive: &Hash) -> Result<(), CatalogError> {
        self.add_to_hash_set(HashSetKey::UnusableArchives, [*archive])
    }

    /// Lets new snapshots use `archive` again.
    pub fn mark_usable(&self, archive: &Hash) -> Result<(), CatalogError> {
        let sql = "DELETE FROM hash_sets WHERE name=?1 AND hash=?2";
        let values = params![HashSetKey::UnusableArchives.name(), &archive.0[..]];
        self.db.execute(sql, values).map(drop).map_err(self.fail())
    }

    fn hash_set(&self, key: HashSetKey) -> Result<HashSet<Hash>, CatalogError> {
        let read = || {
            let mut query = self
                .db
                .prepare("SELECT hash FROM hash_sets WHERE name=?1")?;
            let hashes = query.query_map([key.name()], |row| Ok(Hash(row.get(0)?)))?;
            hashes.collect::<rusqlite::Result<_>>()
        };
        read().map_err(self.fail())
    }

    /// Adds all hashes in one transaction. Writes only if something is new: each write is a flush
    /// of the disk.
    fn add_to_hash_set(
        &self,
        key: HashSetKey,
        hashes: impl IntoIterator<Item = Hash>,
    ) -> Result<(), CatalogError> {
        let known = self.hash_set(key)?;
        let new = hashes.into_iter().filter(|hash| !known.contains(hash));
        let mut new = new.peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let mut write = || {
            let transaction = self.db.unchecked_transaction()?;
            new.try_for_each(|hash| insert(&transaction, key, &hash))?;
            transaction.commit()
        };
        write().map_err(self.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(dir: &tempfile::TempDir) -> Catalog {
        Catalog::open(&dir.path().join("catalog.db")).unwrap()
    }

    #[test]
    fn hash_sets_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = catalog(&dir);
        let (first, second) = (Hash([1; 32]), Hash([2; 32]));
        assert!(catalog.damaged_copies().unwrap().is_empty());
        catalog.add_damaged_copies([second, first, second]).unwrap();
        catalog.add_adopted_heads([second]).unwrap();
        catalog.mark_unusable(&first).unwrap();
        assert_eq!(catalog.damaged_copies().unwrap(), [first, second].into());
        assert_eq!(catalog.adopted_heads().unwrap(), [second].into());
        assert_eq!(catalog.unusable().unwrap(), [first].into());
        catalog.mark_usable(&second).unwrap();
        catalog.mark_usable(&first).unwrap();
        assert!(catalog.unusable().unwrap().is_empty());
        assert_eq!(catalog.damaged_copies().unwrap(), [first, second].into());
    }

    /// Kind: a newer program forgets what an earlier one noted.
    #[test]
    fn the_sets_of_an_earlier_version_are_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (Hash([1; 32]), Hash([2; 32]));
        let old = catalog(&dir);
        for (key, value) in [
            ("damaged on a donor", format!("{first} {second}")),
            // As an early version left it when it emptied a set, and a value that no version wrote.
            ("adopted", format!(" {first} x")),
            ("unusable archives", String::new()),
        ] {
            old.set_meta(key, &value).unwrap();
        }
        let to_version_2 = "DROP TABLE hash_sets; PRAGMA user_version=2";
        old.db.execute_batch(to_version_2).unwrap();
        old.close().unwrap();
        let new = catalog(&dir);
        assert_eq!(new.damaged_copies().unwrap(), [first, second].into());
        assert_eq!(new.adopted_heads().unwrap(), [first].into());
        assert!(new.unusable().unwrap().is_empty());
        assert_eq!(new.meta("adopted").unwrap(), None);
    }
}
