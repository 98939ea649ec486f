//! What the producer hands to the packer: a stamped, validated set of directories to read.

use serde::{Deserialize, Serialize};

use crate::base::database_names::Roots;
use crate::base::ids::Stamp;
use crate::base::openat::Chosen;
use crate::base::walk::Filter;
use crate::format::index::{DatabaseRecord, Skipped, SourceRecord, ValidationRecord};

/// A consistent, validated state of a server, ready to be packed.
#[derive(Debug, Clone)]
pub struct StagedSnapshot {
    pub stamp: Stamp,
    /// Disjoint parts; together they are the snapshot's tree.
    pub parts: Vec<Part>,
    /// Where other names of the parts' databases may be, besides the parts.
    pub roots: Roots,
    pub tags: Vec<String>,
    pub note: Option<String>,
    pub sources: Vec<SourceRecord>,
    pub validation: ValidationRecord,
    /// Databases that the producer copied and checked, by path within the snapshot.
    pub databases: Vec<DatabaseRecord>,
    /// What the producer had to leave out, sources among it.
    pub skipped: Vec<Skipped>,
    /// The sources that the snapshot lacks because they failed.
    pub left_out: Vec<LeftOut>,
}

/// A source that failed: the snapshot was made without it, and the run ends with exit code 3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOut {
    /// The source's name.
    pub source: String,
    /// Its place in the snapshot.
    pub to: String,
    /// Codes of its validation, such as `registry_invalid_json`. Empty if it could not be read at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Why it failed, cause after cause.
    pub cause: String,
    /// What the operator is to do.
    pub next: String,
    /// Where the copy that failed is kept on the host. `None`: nothing was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl LeftOut {
    /// The entry in the snapshot's list of what was skipped, which readers show.
    pub fn skipped(&self) -> Skipped {
        Skipped {
            path: self.to.clone(),
            reason: self.reason(),
        }
    }

    /// `the source "registry" was left out: …`, in one line.
    pub fn reason(&self) -> String {
        let codes = match self.errors.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.errors.join(", ")),
        };
        let kept = match &self.kept {
            Some(kept) => format!("; what was read of it is in {kept} on the host"),
            None => String::new(),
        };
        format!(
            "the source {:?} was left out{codes}: {}{kept}. Next: {}",
            self.source, self.cause, self.next
        )
    }
}

/// One directory (or, in a live tree, another thing) that the packer reads.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it stands in the snapshot, as raw path bytes; empty: it is the snapshot's root.
    pub to: Vec<u8>,
    pub root: Chosen,
    pub filter: Filter,
    /// A directory of our own that nobody writes to; its unchanged files may be hard links into
    /// earlier snapshots, so their ctime says nothing. Not staged: a live tree, read in place.
    pub staged: bool,
}
