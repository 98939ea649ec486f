//! The agent over HTTP, with a stand-in for the scheduler behind a real handle, and a real history,
//! catalog and snapshots directory.

mod admin;
mod auth;
mod hostile;
mod listening;
mod operator;
mod pages;
mod reading;
mod routes;
mod scheduler;
mod schema;
mod stand_in;
mod streams;
