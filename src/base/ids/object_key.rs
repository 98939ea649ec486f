//! The keys of objects below a host's folder on a target.

use std::fmt;

use super::Hash;

/// The key of an object below its host's folder, such as `archives/ab/ab12….tar.zst.age`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

/// The folder of data and index archives.
pub const ARCHIVES: &str = "archives";
/// The folder of the pages of archive tables, and of the pages of earlier snapshots.
pub const TABLES: &str = "tables";
/// The folder of manifests and their signatures.
pub const MANIFESTS: &str = "manifests";
/// The folder of the receipts of drills.
pub const RECEIPTS: &str = "receipts";
/// The folder of signed statements that a snapshot was deleted.
pub const TOMBSTONES: &str = "tombstones";
/// The folder of signed statements that archives are to be deleted.
pub const MARKS: &str = "marks";
const ARCHIVE_ENDING: &str = ".tar.zst.age";

impl ObjectKey {
    /// Returns the key of the archive whose ciphertext has this BLAKE3.
    pub fn archive(blake3: &Hash) -> Self {
        let name = blake3.to_string();
        Self(format!("{ARCHIVES}/{}/{name}{ARCHIVE_ENDING}", &name[..2]))
    }

    /// Returns the key of the page whose content has this SHA-256.
    pub fn table(sha256: &Hash) -> Self {
        Self(format!("{TABLES}/{sha256}.json"))
    }

    /// Returns the key of the manifest `name`.
    pub fn manifest(name: &impl fmt::Display) -> Self {
        Self(format!("{MANIFESTS}/{name}.json"))
    }

    /// Returns the key of the signature of the manifest `name`.
    pub fn signature(name: &impl fmt::Display) -> Self {
        Self(format!("{MANIFESTS}/{name}.json.sig"))
    }

    /// Returns the key of the tombstone of the manifest `name`.
    pub fn tombstone(name: &impl fmt::Display) -> Self {
        Self(format!("{TOMBSTONES}/{name}.json"))
    }

    /// Returns the key of the signature of that tombstone.
    pub fn tombstone_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{TOMBSTONES}/{name}.json.sig"))
    }

    /// Returns the key of the receipt `name`.
    pub fn receipt(name: &impl fmt::Display) -> Self {
        Self(format!("{RECEIPTS}/{name}.json"))
    }

    /// Returns the key of the signature of the receipt `name`.
    pub fn receipt_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{RECEIPTS}/{name}.json.sig"))
    }

    /// Returns the key of the mark `name`.
    pub fn mark(name: &impl fmt::Display) -> Self {
        Self(format!("{MARKS}/{name}.json"))
    }

    /// Returns the key of the signature of the mark `name`.
    pub fn mark_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{MARKS}/{name}.json.sig"))
    }

    /// Returns the key of an object with a fixed name, such as `RECOVER.md`.
    pub fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the BLAKE3 that `key` names; `None` if it is not the key of an archive.
    pub fn archive_hash(key: &str) -> Option<Hash> {
        let rest = key.strip_prefix(ARCHIVES)?.strip_prefix('/')?;
        let (folder, file) = rest.split_once('/')?;
        let hash: Hash = file.strip_suffix(ARCHIVE_ENDING)?.parse().ok()?;
        (folder == &file[..2]).then_some(hash)
    }

    /// Returns the BLAKE3 that a file name names; `None` if it is not the name of an archive.
    pub fn archive_file_hash(file_name: &str) -> Option<Hash> {
        file_name.strip_suffix(ARCHIVE_ENDING)?.parse().ok()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_read_back_from_the_key_of_an_archive() {
        let hash = Hash::blake3(b"x");
        let key = ObjectKey::archive(&hash);
        assert_eq!(ObjectKey::archive_hash(key.as_str()), Some(hash));
        assert_eq!(
            ObjectKey::archive_hash(&key.as_str().replace("archives/", "archives/0")),
            None
        );
    }
}
