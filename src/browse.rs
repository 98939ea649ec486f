//! Looks into sealed snapshots without restoring them: trees, changes, contents. Reads only.

mod attribution;
pub mod difference;
pub mod find;
mod index_copies;
mod index_lines;
mod index_segments;
pub mod live_tree;
pub mod query;
pub mod row_counts;
pub mod snapshot_range;
pub mod versions;
