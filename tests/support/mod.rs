//! Helpers that the test binaries share. Each binary declares this module once, in its `main.rs`.

// Each binary uses some of it.
#![allow(dead_code)]

pub mod cage;
pub mod checker;
pub mod handmade_repo;
pub mod host;
pub mod live_snapshot;
pub mod memory_target;
pub mod proxy;
pub mod rsync;
pub mod s3;
pub mod slow_link;
pub mod small_disk;
pub mod tree;
pub mod turns;
pub mod watched_target;
