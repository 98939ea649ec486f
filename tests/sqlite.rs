//! Databases are opened by a child process: copies are whole, locks hold, nothing is left beside what is
//! not ours, and what was made to harm is ended in time.

#[path = "support/host.rs"]
mod host;

#[path = "sqlite/copies.rs"]
mod copies;
