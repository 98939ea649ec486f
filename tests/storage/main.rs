//! Targets: the contract that every backend keeps, what their faults do to a run, and operations that overlap.

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod faults;
mod interleavings;
