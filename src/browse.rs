//! Looks into sealed snapshots without restoring them: trees, changes, contents. Reads only.

mod content;
pub mod sql;

pub use content::{CopyContentError, StoredContent, copy_content, is_binary};
