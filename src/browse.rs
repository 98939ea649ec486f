//! Looks into sealed snapshots without restoring them: trees, changes, contents. Reads only.

mod content;

pub use content::{CopyContentError, SnapshotContent, copy_content, is_binary};
