//! A machine that gives less than is asked of it: room, permission, open files, memory, readers of what is said.
//! The message names what was wanted and the next step, the exit code is right, nothing is lost, and once the
//! machine gives again the next run is as if nothing had been.

mod disks;
mod environment;
mod limits;
mod restricted_program;
