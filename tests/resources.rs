//! A machine that gives less than is asked of it: room, permission, open files, memory, readers of what is said.
//! The message names what was wanted and the next step, the exit code is right, nothing is lost, and once the
//! machine gives again the next run is as if nothing had been.

#[path = "support/checker.rs"]
mod checker;
#[path = "support/host.rs"]
mod host;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/small_disk.rs"]
mod small_disk;
#[allow(dead_code)]
#[path = "support/tree.rs"]
mod tree;

#[path = "resources/limits.rs"]
mod limits;
#[path = "resources/places.rs"]
mod places;
#[path = "resources/surroundings.rs"]
mod surroundings;
#[path = "resources/wrapped.rs"]
mod wrapped;
