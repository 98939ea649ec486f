//! A repository whose host lies: every hash and signature is right, and what they vouch for is meant to do harm.
//! Restoring it, by the program or by hand, writes nothing outside its directory and stops within bounds.
//! (What the library makes of single lies is in `index.rs`; damage and forgery are in `tests/cli/restore/tamper.rs`.)

mod bounds;
mod index;
mod manifests;
mod paths;
mod recover_py;
mod sizes;
