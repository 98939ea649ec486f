//! Databases are opened by a child process: copies are whole, locks hold, nothing is left beside what is
//! not ours, and what was made to harm is ended in time.

#[path = "support/host.rs"]
mod host;

#[path = "sqlite/confined.rs"]
mod confined;
#[path = "sqlite/copies.rs"]
mod copies;
#[path = "sqlite/hostile.rs"]
mod hostile;
#[path = "sqlite/shapes.rs"]
mod shapes;
