//! Remembers what is needed to judge receipts about a snapshot that was packed.

use crate::base::ids::Hash;
use crate::format::receipt::ReceiptKey;
use crate::state::catalog::{Catalog, CatalogError};

/// Remembers `packed` as the key of the snapshot `core`. A database that was not read, because it
/// did not change, has the schema that the snapshot before it had.
pub(super) fn remember(
    catalog: &Catalog,
    core: &Hash,
    packed: &ReceiptKey,
) -> Result<(), CatalogError> {
    let mut key = packed.clone();
    if key.databases.values().any(Option::is_none) {
        let rows = catalog.snapshots()?;
        let mut earlier = rows.iter().rev().filter(|row| row.known.core != *core);
        let earlier = earlier.next().map(|row| row.known.core);
        let earlier = earlier.map(|core| catalog.receipt_key(&core)).transpose()?;
        let earlier = earlier
            .flatten()
            .map_or_else(Default::default, |key| key.databases);
        for (path, schema) in &mut key.databases {
            if schema.is_none() {
                *schema = earlier.get(path).copied().flatten();
            }
        }
    }
    catalog.remember_receipt_key(core, &key)
}
