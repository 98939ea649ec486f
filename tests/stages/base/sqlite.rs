//! Databases are opened by a child process: copies are whole, locks hold, nothing is left beside what is
//! not ours, and what was made to harm is ended in time.

mod confined;
mod copies;
mod hostile;
mod shapes;
