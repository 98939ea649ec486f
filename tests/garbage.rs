//! Garbage wherever a value comes from outside: every key of the configuration, every variable that the targets'
//! libraries read, every credential file, through every command. Whatever it is, the program says so and ends with one
//! of its own exit codes; no library panics; a secret is not shown; and where the garbage concerns one target, the
//! other one gets its snapshot.
//!
//! Each run tries other values; the seed is printed, and `SEALIFT_TEST_SEED=N` tries the same ones again. The everyday
//! form takes some seconds, `SEALIFT_TEST_LONG=1` minutes.

#[path = "support/host.rs"]
mod host;

#[path = "garbage/configuration.rs"]
mod configuration;
#[path = "garbage/environment.rs"]
mod environment;
#[path = "garbage/files.rs"]
mod files;
#[path = "garbage/panics.rs"]
mod panics;
#[path = "garbage/program.rs"]
mod program;
#[path = "garbage/values.rs"]
mod values;
