//! The stages and what they stand on, by the folders of `src/`: base, format, config, retention, producer, packer,
//! restore.

#[path = "../support/mod.rs"]
mod support;

mod base;
mod config;
mod format;
mod many_snapshots;
mod packer;
mod producer;
mod restore;
mod retention;
