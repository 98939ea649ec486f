//! `base`: walking trees (excludes, mounts) and opening SQLite databases.

mod excludes;
mod mounts;
mod sqlite;
