//! The storm: while each operation runs as root, another user keeps exchanging whatever he can reach of it (sources,
//! staging, scratch, state, targets, destinations) for symbolic links to files that only root may touch, for FIFOs, and
//! for directories of his own. Nothing outside may be read, written, deleted, chmodded, chowned or waited for.
//!
//! An error is a fine end of an operation; a panic, a deadline that passes, or exit code 0 with a wrong result is not.
//! Only root on Linux can play both parts; elsewhere each test prints `SKIPPED`. What is tried is in docs/testing.md.

mod backup;
mod racer;
mod restore;
mod scene;
mod targets;
mod vault;
