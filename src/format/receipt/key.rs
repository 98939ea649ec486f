//! What a host remembers of a snapshot that it made, to judge the receipts about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::{Hash, hex};

/// The schema of each sound database of a snapshot, by its path: the hash of the names of its
/// tables and columns. `None`: it is not known here.
pub type Schemas = BTreeMap<String, Option<Hash>>;

/// The salt in a snapshot's sealed index, and the schema of each of its databases.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptKey {
    /// The salt: with it the witness of a receipt can be made.
    #[serde(with = "salt_text")]
    pub salt: [u8; 32],
    /// The schemas.
    pub databases: Schemas,
}

impl std::fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiptKey({} databases)", self.databases.len())
    }
}

impl ReceiptKey {
    /// Returns the schema as a receipt states it: 16 hex digits of a hash that is keyed by the
    /// salt. `None`: there is no database, or the schema of one is not known.
    pub fn schema(&self) -> Option<String> {
        keyed_schema(&self.salt, &self.databases)
    }
}

/// Returns what [`ReceiptKey::schema`] does.
pub fn keyed_schema(salt: &[u8; 32], databases: &Schemas) -> Option<String> {
    if databases.is_empty() || databases.values().any(Option::is_none) {
        return None;
    }
    let text = serde_json::to_vec(databases).ok()?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, salt);
    Some(hex(&ring::hmac::sign(&key, &text).as_ref()[..8]))
}

/// Returns the salt that an index states. `None`: it states none of 32 bytes.
pub fn salt_of(text: &str) -> Option<[u8; 32]> {
    // It has the form of a hash.
    text.parse().ok().map(|Hash(salt)| salt)
}

mod salt_text {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::base::ids::Hash;

    pub(super) fn serialize<S: Serializer>(salt: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        Hash(*salt).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        Hash::deserialize(d).map(|hash| hash.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_keyed_and_needs_every_database() {
        let mut key = ReceiptKey {
            salt: [1; 32],
            databases: Schemas::from([("a.db".to_owned(), Some(Hash([2; 32])))]),
        };
        let schema = key.schema().unwrap();
        assert_eq!(schema.len(), 16);
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<ReceiptKey>(&text).unwrap(), key);
        key.salt = [3; 32];
        assert_ne!(key.schema().unwrap(), schema);
        key.databases.insert("b.db".to_owned(), None);
        assert_eq!(key.schema(), None);
        assert_eq!(salt_of("abc"), None);
        assert_eq!(salt_of(&"07".repeat(32)), Some([7; 32]));
    }
}
