//! What a target that fails does to a backup: nothing to the other targets, nothing to what is published, a line in
//! the report, and nothing at all once it is mended.
//!
//! `cargo nextest run --test storage faults:: --no-capture` prints what each fault cost and what was said of it.

mod answers;
mod full_disk;
mod lagging;
mod network;
mod pusher;
mod scene;
mod steps;
mod steps_of_prune;
mod steps_of_restore;
mod steps_of_sync;
