//! Looks into sealed snapshots without restoring them: trees, changes, contents. Reads only.

pub mod sql;
