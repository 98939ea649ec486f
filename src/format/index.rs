//! The sealed list of a snapshot's entries: JSON Lines, canonical, sorted by raw path bytes.
//!
//! Line 1 is the header, then one line per data archive, then one line per entry (docs/format.md,
//! 4). An unchanged entry has the identical line from snapshot to snapshot, so the index
//! deduplicates like any file. [`IndexReader`] trusts nothing: it checks every path, size and
//! extent before a caller sees it. (The exception: the restore plan checks that a hard link names
//! an earlier file, since the reader does not remember the files that it has passed.)

mod batches;
mod entries;
mod entry;
mod error;
mod header;
mod line;
mod open_dirs;
pub(crate) mod proof;
mod reader;

pub use super::extent::{Extent, push_extent};
pub use crate::base::skipped::Skipped;
pub use entries::{EntryList, EntryRef};
pub use entry::{Entry, EntryType, has_wide_time, is_wide_time, parent_path};
pub use error::IndexError;
pub use header::{ArchiveStream, DatabaseRecord, IndexHeader, SourceRecord, ValidationRecord};
pub(crate) use line::path_of_line;
pub(in crate::format) use line::{name_bytes, name_text};
pub use open_dirs::OpenDirs;
pub(crate) use reader::check_extents;
pub use reader::{IndexReader, MAX_TAR_BYTES};
