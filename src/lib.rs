//! Sealift: an off-site replication agent with encryption. See README.md and docs/format.md.

pub mod agent;
pub mod bandwidth;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod fs;
pub mod ids;
pub mod index;
pub mod interrupt;
pub mod manifest;
pub mod packer;
pub mod pins;
pub mod producer;
pub mod prune;
pub mod repository;
pub mod restore;
pub mod retention;
pub mod scrub;
pub mod shipper;
pub mod snapshot;
pub mod spool;
pub mod sqlite;
pub mod target;
pub mod walk;
