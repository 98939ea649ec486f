//! Carries what no target shows from an old catalog into a rebuilt one.

use std::collections::HashSet;

use super::introduction;
use super::lineage::{BEGINS_AFTER, HIGHEST};
use crate::base::ids::Hash;
use crate::state::catalog::{Catalog, CatalogError};

/// What no target shows, and a rebuilt catalog needs.
pub(crate) struct CarriedOver {
    entries: Vec<(&'static str, String)>,
    adopted_heads: HashSet<Hash>,
}

impl CarriedOver {
    /// Reads it from the old catalog.
    pub(crate) fn of(catalog: &Catalog) -> Result<Self, CatalogError> {
        let keys = [
            HIGHEST,
            BEGINS_AFTER,
            introduction::LAST_SIGNER,
            introduction::ANNOUNCED,
        ];
        let entries = keys.into_iter().filter_map(|key| match catalog.meta(key) {
            Ok(value) => value.map(|value| Ok((key, value))),
            Err(error) => Some(Err(error)),
        });
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            adopted_heads: catalog.adopted_heads()?,
        })
    }

    /// Writes it into the new catalog.
    pub(crate) fn write(self, catalog: &Catalog) -> Result<(), CatalogError> {
        for (key, value) in &self.entries {
            catalog.set_meta(key, value)?;
        }
        catalog.add_adopted_heads(self.adopted_heads)
    }
}
