//! The agent as it runs for weeks: its schedule, its children, and everything that it answers.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(clippy::too_many_arguments, unreachable_pub, missing_docs, unsafe_code)]

#[path = "../support/mod.rs"]
mod support;

mod children;
mod messages;
mod scene;
mod schedule;
mod service_manager;
mod week;
