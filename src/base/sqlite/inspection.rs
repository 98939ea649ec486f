//! What is asked of a check, and its outcome.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a database says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspection {
    /// `ok`, or what the check said first.
    pub integrity: String,
    /// Bytes.
    pub page_size: u32,
    /// Rows of each table that holds rows itself; a table that needs an extension we lack is left out. Of a
    /// damaged database none are counted.
    pub tables: BTreeMap<String, u64>,
    /// What was not checked because only the database's application can: tables or indexes, and why. The rest
    /// was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<String>,
}

impl Inspection {
    pub fn is_ok(&self) -> bool {
        self.integrity == "ok"
    }
}

/// How much of a database is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Every page and record, and that each page has one owner (`quick_check`). What it leaves out can be
    /// made again from what it looks at: what stands in indexes, and in a virtual table's own index.
    Structure,
    /// Also that every index agrees with its table (`integrity_check`), which takes some four times as
    /// long. The index of a virtual table is its module's business and left out here too.
    Indexes,
}

impl Depth {
    pub(super) fn pragma(self) -> &'static str {
        match self {
            Self::Structure => "quick_check",
            Self::Indexes => "integrity_check",
        }
    }
}
