//! Garbage wherever a value comes from outside: every key of the configuration, every variable that the targets'
//! libraries read, every credential file, through every command. Whatever it is, the program says so and ends with one
//! of its own exit codes; no library panics; a secret is not shown; and where the garbage concerns one target, the
//! other one gets its snapshot.
//!
//! Each run tries other values; the seed is printed, and `SEALIFT_TEST_SEED=N` tries the same ones again. The everyday
//! form takes some seconds, `SEALIFT_TEST_LONG=1` minutes.

mod configuration;
mod environment;
mod files;
mod panics;
mod program;
mod values;
