//! What a target that fails does to a backup: nothing to the other targets, nothing to what is published, a word to
//! whoever reads the report, and nothing at all once it is mended.
//!
//! `cargo nextest run --test faults --no-capture` prints what each fault cost and what was said of it.

#[path = "support/checker.rs"]
mod checker;
#[path = "support/data.rs"]
mod data;
#[path = "support/host.rs"]
mod host;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/rsync.rs"]
mod rsync;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/small_disk.rs"]
mod small_disk;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;
#[path = "support/watched.rs"]
mod watched;

#[path = "faults/answers.rs"]
mod answers;
#[path = "faults/full_disk.rs"]
mod full_disk;
#[path = "faults/lagging.rs"]
mod lagging;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/pusher.rs"]
mod pusher;
#[path = "faults/scene.rs"]
mod scene;
#[path = "faults/steps.rs"]
mod steps;
#[path = "faults/steps_of_prune.rs"]
mod steps_of_prune;
#[path = "faults/steps_of_restore.rs"]
mod steps_of_restore;
#[path = "faults/steps_of_sync.rs"]
mod steps_of_sync;
