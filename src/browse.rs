//! Looks into sealed snapshots without restoring them: trees, changes, contents. Reads only.

#[cfg(feature = "mount")]
pub mod mount;
pub mod tree;
