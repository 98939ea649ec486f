//! Small sets of hashes that a run leaves for the next one.
//!
//! Each is one value in the catalog's `meta` table: the hashes in hex, in ascending order,
//! separated by spaces. What is not a hash in such a value is ignored, as it was in the catalogs of
//! earlier versions.

use std::collections::{BTreeSet, HashSet};

use super::{Catalog, CatalogError};
use crate::base::ids::Hash;

/// The key of [`Catalog::adopted_heads`] in `meta`, for a new catalog that takes the value over.
pub(crate) const ADOPTED_HEADS: &str = "adopted";

/// A set of hashes in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashSetKey {
    DamagedCopies,
    AdoptedHeads,
    UnusableArchives,
}

impl HashSetKey {
    /// The key in `meta`.
    fn text(self) -> &'static str {
        match self {
            Self::DamagedCopies => "damaged on a donor",
            Self::AdoptedHeads => ADOPTED_HEADS,
            Self::UnusableArchives => "unusable archives",
        }
    }
}

impl Catalog {
    /// Returns the archives that were damaged on a target from which they should have been copied.
    pub fn damaged_copies(&self) -> Result<HashSet<Hash>, CatalogError> {
        Ok(self
            .hash_set(HashSetKey::DamagedCopies)?
            .into_iter()
            .collect())
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
        Ok(self
            .hash_set(HashSetKey::AdoptedHeads)?
            .into_iter()
            .collect())
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
        Ok(self
            .hash_set(HashSetKey::UnusableArchives)?
            .into_iter()
            .collect())
    }

    /// Makes the next push store the content of `archive` again.
    pub fn mark_unusable(&self, archive: &Hash) -> Result<(), CatalogError> {
        self.add_to_hash_set(HashSetKey::UnusableArchives, [*archive])
    }

    /// Lets new snapshots use `archive` again.
    pub fn mark_usable(&self, archive: &Hash) -> Result<(), CatalogError> {
        let mut all = self.hash_set(HashSetKey::UnusableArchives)?;
        match all.remove(archive) {
            true => self.set_hash_set(HashSetKey::UnusableArchives, &all),
            false => Ok(()),
        }
    }

    fn hash_set(&self, key: HashSetKey) -> Result<BTreeSet<Hash>, CatalogError> {
        let text = self.meta(key.text())?.unwrap_or_default();
        let hashes = text.split(' ').filter_map(|hash| hash.parse().ok());
        Ok(hashes.collect())
    }

    /// Writes only if something is new: each write is a flush of the disk.
    fn add_to_hash_set(
        &self,
        key: HashSetKey,
        hashes: impl IntoIterator<Item = Hash>,
    ) -> Result<(), CatalogError> {
        let mut all = self.hash_set(key)?;
        let before = all.len();
        all.extend(hashes);
        match all.len() > before {
            true => self.set_hash_set(key, &all),
            false => Ok(()),
        }
    }

    fn set_hash_set(&self, key: HashSetKey, hashes: &BTreeSet<Hash>) -> Result<(), CatalogError> {
        let texts: Vec<String> = hashes.iter().map(Hash::to_string).collect();
        self.set_meta(key.text(), &texts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a set is written in another form than earlier versions read, or one set is taken for
    /// another.
    #[test]
    fn hash_sets_keep_their_form_and_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let (first, second) = (Hash([1; 32]), Hash([2; 32]));
        assert!(catalog.damaged_copies().unwrap().is_empty());
        catalog.add_damaged_copies([second, first]).unwrap();
        catalog.add_adopted_heads([second]).unwrap();
        catalog.mark_unusable(&first).unwrap();
        assert_eq!(
            catalog.meta("damaged on a donor").unwrap(),
            Some(format!("{first} {second}"))
        );
        assert_eq!(catalog.damaged_copies().unwrap(), [first, second].into());
        assert_eq!(catalog.adopted_heads().unwrap(), [second].into());
        assert_eq!(catalog.unusable().unwrap(), [first].into());
        catalog.mark_usable(&second).unwrap();
        catalog.mark_usable(&first).unwrap();
        assert!(catalog.unusable().unwrap().is_empty());
        // As an earlier version left it when it emptied a set, and a value that no version wrote.
        catalog.set_meta("adopted", &format!(" {first} x")).unwrap();
        assert_eq!(catalog.adopted_heads().unwrap(), [first].into());
    }
}
