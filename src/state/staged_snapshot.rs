//! The snapshot as the producer passes it to the packer: a stamped, validated set of directories to
//! read.

use serde::{Deserialize, Serialize};

use crate::base::database_names::Roots;
use crate::base::ids::Stamp;
use crate::base::openat::Chosen;
use crate::base::walk::Filter;
use crate::format::index::{DatabaseRecord, Skipped, SourceRecord, ValidationRecord};

/// A consistent, validated state of a server that is ready to be packed.
#[derive(Debug, Clone)]
pub struct StagedSnapshot {
    /// The time of the snapshot, unique on this host.
    pub stamp: Stamp,
    /// Disjoint parts, which together are the snapshot's tree.
    pub parts: Vec<Part>,
    /// Further directories in which the parts' databases may have other names.
    pub roots: Roots,
    /// Tags for the sealed index.
    pub tags: Vec<String>,
    /// A note for the sealed index; `None`: none.
    pub note: Option<String>,
    /// The sources that the snapshot contains.
    pub sources: Vec<SourceRecord>,
    /// The outcome of the validation.
    pub validation: ValidationRecord,
    /// The databases that the producer copied and checked, by path within the snapshot.
    pub databases: Vec<DatabaseRecord>,
    /// Everything that the producer had to leave out, sources included.
    pub skipped: Vec<Skipped>,
    /// The sources that failed and are missing from the snapshot.
    pub left_out: Vec<LeftOut>,
}

/// A source that failed: the snapshot is made without it, and the run ends with exit code 3.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOut {
    /// The source's name.
    pub source: String,
    /// Its path in the snapshot.
    pub to: String,
    /// Codes of its validation, such as `registry_invalid_json`. Empty: the source could not be
    /// read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Why it failed: the error and its causes.
    pub cause: String,
    /// The next step for the operator.
    pub next: String,
    /// The path on the host at which the failed copy is kept; `None`: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl LeftOut {
    /// Returns the entry for the snapshot's list of skipped things, which readers show.
    pub fn skipped(&self) -> Skipped {
        Skipped {
            path: self.to.clone(),
            reason: self.reason(),
        }
    }

    /// Returns the reason in one line: `the source "registry" was left out: …`.
    pub fn reason(&self) -> String {
        let codes = match self.errors.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.errors.join(", ")),
        };
        let kept = match &self.kept {
            Some(kept) => format!("; the part that was read is in {kept} on the host"),
            None => String::new(),
        };
        format!(
            "the source {:?} was left out{codes}: {}{kept}. Next: {}",
            self.source, self.cause, self.next
        )
    }
}

/// One directory that the packer reads; of a live tree it can also be another thing.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its path in the snapshot, as raw bytes; empty: it is the snapshot's root.
    pub to: Vec<u8>,
    /// The open directory or thing.
    pub root: Chosen,
    /// What of it is packed.
    pub filter: Filter,
    /// It is a directory of our own to which no process writes. Its unchanged files may be hard
    /// links into earlier snapshots, so their ctime means nothing. Otherwise it is a live tree that
    /// is read in place.
    pub staged: bool,
}
