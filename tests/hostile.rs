//! A repository whose host lies: every hash and signature is right, and what they vouch for is meant to do harm.
//! Restoring it, by the program or by hand, writes nothing outside its directory and stops within bounds.
//! (What the library makes of single lies is in `review.rs`; damage and forgery are in `agent/tamper.rs`.)

#[path = "support/host.rs"]
mod host;
#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/repo.rs"]
#[allow(unused_imports)]
mod repo;

#[path = "hostile/bounds.rs"]
mod bounds;
#[path = "hostile/by_hand.rs"]
mod by_hand;
#[path = "hostile/manifests.rs"]
mod manifests;
#[path = "hostile/paths.rs"]
mod paths;
#[path = "hostile/sizes.rs"]
mod sizes;
