//! Surroundings that mean harm, or provide less than they should: hosts that lie, values that are garbage, other users
//! of the machine, damaged objects, and a machine that is short of room, permission or memory.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod damage;
mod exchanged;
mod forged_index;
mod garbage;
mod lying_host;
mod other_users;
mod scarcity;
#[cfg(target_os = "linux")]
mod storm;
