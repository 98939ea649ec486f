//! The use cases that the command line and the agent share: each takes a request, does the work and returns a report. A
//! job prints nothing.

pub mod forget_local;
pub mod local_retention;
pub mod push;
pub mod rebuild_catalog;
pub mod repair;
pub mod test_restore;
