//! The program as its users run it: hosts that back up, key holders that restore, and the faults that come between
//! them. One module per verb; `cmd/` holds the expected output of each verb.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod cat;
mod catalog_rebuild;
mod choosing;
mod clocks;
mod commands;
mod diff;
mod documented;
mod drill;
mod exits;
mod find;
mod first_week;
mod help;
mod in_place;
mod json;
mod known_signers;
mod list_and_status;
mod listing;
mod mount;
mod notify;
mod opened_files;
mod paper;
mod procedure;
mod progress;
mod prune;
mod remotes;
mod restore;
mod run_record;
mod runs;
mod setup;
mod shell;
mod specs;
mod sql;
mod stats;
mod sync;
mod terminal;
mod units;
mod unreachable;
mod verdict;
mod verify;
