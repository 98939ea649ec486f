//! The lowest layer: names and times, the file system below an open directory, walks, SQLite files,
//! clean-up.
//!
//! Nothing here knows the format of what Sealift stores on a target.

pub(crate) mod blake3_tree;
pub mod cleanup;
pub mod clock;
pub mod command;
pub mod confine;
pub mod credentials;
pub mod database_names;
pub mod dir_lock;
pub mod error_chain;
pub mod fs;
pub(crate) mod glob;
pub(crate) mod held_locks;
pub mod ids;
pub mod journal;
pub(crate) mod local_time;
pub mod lock;
pub(crate) mod no_memory;
pub mod open_files;
pub mod openat;
pub(crate) mod own_process;
pub mod ownership;
pub mod panics;
pub(crate) mod path_choice;
pub mod process;
pub mod progress;
pub mod rate_schedule;
pub mod runtime;
pub(crate) mod scratch_dir;
pub mod shell_word;
pub mod similar;
pub mod skipped;
pub mod snapshot_choice;
pub mod sqlite;
pub(crate) mod timed_reader;
pub(crate) mod units;
pub mod user_dirs;
pub mod walk;
