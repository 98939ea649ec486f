//! The stages and the layers below them, by the folders of `src/`: base, format, config, retention, producer, packer,
//! restore.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod base;
mod checks;
mod config;
mod format;
mod many_snapshots;
mod packer;
mod producer;
mod range_reader;
mod restore;
mod retention;
