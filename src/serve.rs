//! The agent: it runs what is due as child processes, keeps the history of runs, and answers over
//! HTTP.

pub(crate) mod handle;
pub(crate) mod http;
