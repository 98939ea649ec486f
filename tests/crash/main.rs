//! The crash matrix: the real program, stopped or failed at every system call of it that changes a file, on disks
//! that forget what was not flushed. See docs/testing.md.
//!
//! `cargo nextest run --test crash --no-capture` prints how many points were tried of each command.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(target_arch = "x86_64")]
mod backup;
#[cfg(target_arch = "x86_64")]
mod calls;
#[cfg(target_arch = "x86_64")]
mod disk;
#[cfg(target_arch = "x86_64")]
mod in_place;
#[cfg(target_arch = "x86_64")]
mod points;
#[cfg(target_arch = "x86_64")]
mod prune;
mod random_moments;
#[cfg(target_arch = "x86_64")]
mod restore;
#[cfg(target_arch = "x86_64")]
mod scene;
#[cfg(target_arch = "x86_64")]
mod sync;
#[cfg(target_arch = "x86_64")]
mod tracer;

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn a_command_stopped_at_any_call_loses_nothing() {
    eprintln!(
        "SKIPPED: the crash matrix reads the registers of an x86_64, which this machine is not"
    );
}
