//! What this host remembers of the snapshots that it packed, to judge the receipts about them. It
//! cannot be read from a target: the index is sealed. A lost catalog leaves receipts whose witness
//! cannot be checked here.

use std::collections::HashMap;

use super::{Catalog, CatalogError};
use crate::base::ids::Hash;
use crate::format::receipt::ReceiptKey;

/// How the keys in `meta` begin.
const PREFIX: &str = "receipt-key ";

/// The key in `meta` of the snapshot `core`.
pub(super) fn key(core: &Hash) -> String {
    format!("{PREFIX}{core}")
}

impl Catalog {
    /// Remembers the salt and the schemas of the snapshot `core`.
    pub fn remember_receipt_key(
        &self,
        core: &Hash,
        receipt_key: &ReceiptKey,
    ) -> Result<(), CatalogError> {
        // Texts always have a JSON form.
        let text = serde_json::to_string(receipt_key).unwrap_or_default();
        self.set_meta(&key(core), &text)
    }

    /// Returns what is remembered of the snapshot `core`. `None`: another machine packed it, or an
    /// earlier version, or the catalog was lost since.
    pub fn receipt_key(&self, core: &Hash) -> Result<Option<ReceiptKey>, CatalogError> {
        let text = self.meta(&key(core))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Returns what is remembered of all snapshots.
    pub fn receipt_keys(&self) -> Result<HashMap<Hash, ReceiptKey>, CatalogError> {
        let query = "SELECT key, value FROM meta WHERE key >= ?1 AND key < ?2";
        let mut statement = self.db.prepare(query).map_err(self.fail())?;
        // The next character after the blank.
        let range = [PREFIX, "receipt-key!"];
        let rows = statement.query_map(range, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        });
        let mut all = HashMap::new();
        for row in rows.map_err(self.fail())? {
            let (key, text) = row.map_err(self.fail())?;
            let core = key.strip_prefix(PREFIX).and_then(|core| core.parse().ok());
            if let (Some(core), Ok(key)) = (core, serde_json::from_str(&text)) {
                all.insert(core, key);
            }
        }
        Ok(all)
    }
}
