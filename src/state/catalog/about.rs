//! Tags and sources of the snapshots that this host packed. On targets they are in the sealed
//! index, which this host cannot read, and its own copy of a snapshot is deleted some day.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError};
use crate::base::ids::Hash;
use crate::format::index::IndexHeader;

/// What the catalog remembers of a snapshot's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotAbout {
    /// Its tags.
    pub tags: Vec<String>,
    /// Where in it the sources belong that it holds.
    pub sources: Vec<String>,
}

impl From<IndexHeader> for SnapshotAbout {
    fn from(header: IndexHeader) -> Self {
        let sources = header.sources.into_iter();
        Self {
            tags: header.tags,
            sources: sources.map(|source| source.to).collect(),
        }
    }
}

/// How the keys in `meta` begin.
const PREFIX: &str = "about ";

/// The key in `meta` of the snapshot `core`.
pub(super) fn key(core: &Hash) -> String {
    format!("{PREFIX}{core}")
}

impl Catalog {
    /// Remembers tags and sources of the snapshot `core`.
    pub fn remember_about(&self, core: &Hash, about: &SnapshotAbout) -> Result<(), CatalogError> {
        // Lists of texts always have a JSON form.
        let text = serde_json::to_string(about).unwrap_or_default();
        self.set_meta(&key(core), &text)
    }

    /// Returns tags and sources of the snapshot `core`. `None`: another machine, or an earlier
    /// version, packed it, or the catalog was lost since.
    pub fn about(&self, core: &Hash) -> Result<Option<SnapshotAbout>, CatalogError> {
        let text = self.meta(&key(core))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Returns tags and sources of all snapshots of which they are known.
    pub fn all_about(&self) -> Result<HashMap<Hash, SnapshotAbout>, CatalogError> {
        let query = "SELECT key, value FROM meta WHERE key >= ?1 AND key < ?2";
        let mut statement = self.db.prepare(query).map_err(self.fail())?;
        // The next character after the blank.
        let range = [PREFIX, "about!"];
        let rows = statement.query_map(range, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        });
        let mut all = HashMap::new();
        for row in rows.map_err(self.fail())? {
            let (key, text) = row.map_err(self.fail())?;
            let core = key.strip_prefix(PREFIX).and_then(|core| core.parse().ok());
            if let (Some(core), Ok(about)) = (core, serde_json::from_str(&text)) {
                all.insert(core, about);
            }
        }
        Ok(all)
    }
}
