//! The agent: it runs what is due as child processes, keeps the history of runs, and answers over
//! HTTP.
//!
//! [`scheduler`] decides and records; [`child`] is one run as a process; [`calendar`] says what is
//! due. Everything that happens reaches the scheduler through one queue, [`wake`].

pub(crate) mod after_change;
pub(crate) mod agent;
mod calendar;
mod child;
mod child_events;
mod child_log;
pub(crate) mod handle;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod metrics;
mod own_facts;
mod run_end;
mod scheduler;
mod service_manager;
mod signals;
mod timers;
mod wake;
