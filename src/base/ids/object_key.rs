//! The keys of objects below a host's folder on a target.

use std::fmt;

use super::Hash;

/// Where an object stands below its host's folder, such as `archives/ab/ab12….tar.zst.age`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

pub const ARCHIVES: &str = "archives";
pub const TABLES: &str = "tables";
pub const MANIFESTS: &str = "manifests";
pub const RECEIPTS: &str = "receipts";
pub const TOMBSTONES: &str = "tombstones";
pub const MARKS: &str = "marks";
const ARCHIVE_ENDING: &str = ".tar.zst.age";

impl ObjectKey {
    pub fn archive(blake3: &Hash) -> Self {
        let name = blake3.to_string();
        Self(format!("{ARCHIVES}/{}/{name}{ARCHIVE_ENDING}", &name[..2]))
    }

    pub fn table(sha256: &Hash) -> Self {
        Self(format!("{TABLES}/{sha256}.json"))
    }

    pub fn manifest(name: &impl fmt::Display) -> Self {
        Self(format!("{MANIFESTS}/{name}.json"))
    }

    pub fn signature(name: &impl fmt::Display) -> Self {
        Self(format!("{MANIFESTS}/{name}.json.sig"))
    }

    pub fn tombstone(name: &impl fmt::Display) -> Self {
        Self(format!("{TOMBSTONES}/{name}.json"))
    }

    pub fn tombstone_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{TOMBSTONES}/{name}.json.sig"))
    }

    pub fn mark(name: &impl fmt::Display) -> Self {
        Self(format!("{MARKS}/{name}.json"))
    }

    pub fn mark_signature(name: &impl fmt::Display) -> Self {
        Self(format!("{MARKS}/{name}.json.sig"))
    }

    /// A fixed, well-known object such as `RECOVER.md`.
    pub fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The BLAKE3 that an archive's key promises, if this is an archive's key.
    pub fn archive_hash(key: &str) -> Option<Hash> {
        let rest = key.strip_prefix(ARCHIVES)?.strip_prefix('/')?;
        let (folder, file) = rest.split_once('/')?;
        let hash: Hash = file.strip_suffix(ARCHIVE_ENDING)?.parse().ok()?;
        (folder == &file[..2]).then_some(hash)
    }

    /// The BLAKE3 that a file's name promises, if it is named like an archive.
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
    fn archive_keys_give_back_their_hash() {
        let hash = Hash::blake3(b"x");
        let key = ObjectKey::archive(&hash);
        assert_eq!(ObjectKey::archive_hash(key.as_str()), Some(hash));
        assert_eq!(
            ObjectKey::archive_hash(&key.as_str().replace("archives/", "archives/0")),
            None
        );
    }
}
