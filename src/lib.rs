//! Sealift: an off-site replication agent with encryption. See README.md and docs/format.md.
//!
//! The layers, from the top; a module imports from its own folder and from lower layers only
//! (`tests/layers`):
//!
//! - [`cli`]: arguments and printing.
//! - [`serve`]: the agent.
//! - [`jobs`]: the use cases, which print nothing.
//! - [`browse`]: what is in sealed snapshots, by range reads.
//! - [`producer`], [`packer`], [`shipper`], [`restore`], [`prune`], [`scrub`], [`checks`],
//!   [`notify`]: the stages, which do not know each other.
//! - [`repository`]: one host's folder on a target; [`config`]: the configuration file.
//! - [`storage`]: the targets; [`state`]: the state directory; [`keys`]: recipients and identities.
//! - [`format`](mod@format): all that is stored on a target; [`retention`]: which snapshots stay.
//! - [`base`]: what every layer uses.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::print_stdout))]

pub mod base;
pub mod browse;
pub mod checks;
pub mod cli;
pub mod config;
pub mod format;
pub mod jobs;
pub mod keys;
pub mod notify;
pub mod packer;
pub mod producer;
pub mod prune;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod scrub;
pub mod serve;
pub mod shipper;
pub mod state;
pub mod storage;
