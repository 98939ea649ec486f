//! Runs the commands of the configuration: sources, hooks, checks.
//!
//! - A command's output counts only if the command succeeds in time.
//! - The end of its stderr is kept with the run, or with the error if it failed.
//! - Its whole process group is ended if it fails, if its time is up, and if this process must
//!   end. The group of a command whose output is the copy is always ended, so that nothing writes
//!   into the copy later. Services that another command has started go on.
//! - It gets the environment without the targets' credentials.

mod error;
mod line;
mod run;
mod shell;
mod stderr;

pub use error::CommandError;
pub use line::CommandLine;
pub(crate) use run::{Ran, SharedGroup, StdoutTo, Streams, run_guarded, run_in, stderr_text};
pub(crate) use stderr::in_memory;
