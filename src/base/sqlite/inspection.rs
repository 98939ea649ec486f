//! How deep a check goes, and its outcome.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::Hash;

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// `ok`, or the first complaint of the check.
    pub integrity: String,
    /// Bytes per page.
    pub page_size: u32,
    /// Number of rows of each table that holds rows itself, without tables that need an extension
    /// we lack. Empty for a damaged database.
    pub tables: BTreeMap<String, u64>,
    /// SHA-256 of the names of these tables and of their columns. `None` for a damaged database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Hash>,
    /// Tables or indexes that only the database's application can check, and why. `None`:
    /// everything was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

impl Inspection {
    /// Returns whether the check found nothing wrong.
    pub fn is_ok(&self) -> bool {
        self.integrity == "ok"
    }
}

/// How much of a database is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Every page and record, and that each page belongs to one table or index (`quick_check`). The
    /// content of indexes, and of a virtual table's own index, is left out: it can be built again
    /// from the rows.
    Structure,
    /// Also that every index agrees with its table (`integrity_check`), which takes about four
    /// times as long. Only its module can check the index of a virtual table, so that is left out
    /// here, too.
    Indexes,
}

impl Depth {
    /// Returns the name of SQLite's own check.
    pub(crate) fn pragma(self) -> &'static str {
        match self {
            Self::Structure => "quick_check",
            Self::Indexes => "integrity_check",
        }
    }
}
