//! Targets: the contract that every backend keeps, what their faults do to a run, and operations that overlap.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod faults;
mod interleavings;
