//! The history of runs: each of `backup`, `push`, `verify`, `prune`, `sync`, `restore` and
//! `rollback` writes a row into it, from its begin to its end.
//!
//! - The row's id is that of the run's report. A child of the agent finds its id in
//!   [`RUN_VARIABLE`], and takes over the row that the agent wrote.
//! - A row without an end whose process is gone is closed as `killed`, by the next command that
//!   records or shows runs, and by the agent.
//! - The history is not vital: what fails here is a warning, and the run goes on.

mod dead;
mod forget;
mod message;
mod recorder;
mod show;
mod usual;

pub(crate) use dead::close_dead;
#[allow(
    unused_imports,
    reason = "the agent calls it with the limits of the configuration"
)]
pub(crate) use forget::forget;
pub(crate) use recorder::{Recording, RunRecorder};
pub(crate) use show::{ListedRun, RunListRequest, ShownRun, list, show};
pub(crate) use usual::usual_time;

pub(crate) use crate::base::credentials::RUN_VARIABLE;
/// The total of the bytes that were sent, by target.
const SENT_BYTES: &str = "sent_bytes";
/// The outcome of a run whose process is gone.
const KILLED: &str = "killed";
