//! What every layer stands on and nothing of which knows Sealift's format: names and times, the file system below an open
//! directory, walks, SQLite, clean-up.

pub mod cleanup;
pub mod clock;
pub mod confine;
pub mod database_names;
pub mod error_chain;
pub mod fs;
pub mod ids;
pub mod journal;
pub mod openat;
pub mod ownership;
pub mod panics;
pub mod rate_schedule;
pub(crate) mod scratch_dir;
pub mod sqlite;
pub(crate) mod units;
pub mod walk;
