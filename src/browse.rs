//! Looks into sealed snapshots without restoring them: trees, changes, contents. Reads only.

mod attribution;
mod content;
pub mod content_map;
pub mod difference;
pub mod find;
mod index_copies;
mod index_lines;
mod index_segments;
pub mod live_tree;
#[cfg(feature = "mount")]
pub mod mount;
pub mod query;
pub mod row_counts;
pub mod snapshot_range;
pub mod sql;
pub mod tree;
pub mod versions;

pub use content::{CopyContentError, SnapshotContent, copy_content, is_binary};
