//! What the producer hands to the packer: a stamped, validated set of directories to read.

use crate::database_names::Roots;
use crate::ids::Stamp;
use crate::index::{DatabaseRecord, Skipped, SourceRecord, ValidationRecord};
use crate::openat::Chosen;
use crate::walk::Filter;

/// A consistent, validated state of a server, ready to be packed.
#[derive(Debug, Clone)]
pub struct Snapshot {
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
    /// What the producer had to leave out.
    pub skipped: Vec<Skipped>,
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
