//! The crash matrix: the real program, stopped or failed at every system call of it that changes a file, on disks
//! that forget what was not flushed. See docs/testing.md.
//!
//! `cargo nextest run --test crash --no-capture` prints how many points were tried of each command.

#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[path = "support/checker.rs"]
mod checker;
#[path = "support/host.rs"]
mod host;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

#[cfg(target_arch = "x86_64")]
#[path = "crash/backup.rs"]
mod backup;
#[cfg(target_arch = "x86_64")]
#[path = "crash/calls.rs"]
mod calls;
#[cfg(target_arch = "x86_64")]
#[path = "crash/disk.rs"]
mod disk;
#[cfg(target_arch = "x86_64")]
#[path = "crash/points.rs"]
mod points;
#[cfg(target_arch = "x86_64")]
#[path = "crash/prune.rs"]
mod prune;
#[cfg(target_arch = "x86_64")]
#[path = "crash/restore.rs"]
mod restore;
#[cfg(target_arch = "x86_64")]
#[path = "crash/scene.rs"]
mod scene;
#[cfg(target_arch = "x86_64")]
#[path = "crash/sync.rs"]
mod sync;
#[cfg(target_arch = "x86_64")]
#[path = "crash/tracer.rs"]
mod tracer;

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn a_command_stopped_at_any_call_loses_nothing() {
    eprintln!(
        "SKIPPED: the crash matrix reads the registers of an x86_64, which this machine is not"
    );
}
