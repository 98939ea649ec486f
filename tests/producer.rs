//! The producer, on real databases, trees and commands: what a snapshot holds, and when there is none.

#[path = "producer/atocore.rs"]
mod atocore;
#[path = "producer/chosen.rs"]
mod chosen;
#[path = "producer/databases.rs"]
mod databases;
#[path = "producer/hooks.rs"]
mod hooks;
#[path = "producer/host.rs"]
mod host;
#[path = "producer/local.rs"]
mod local;
#[path = "producer/moving.rs"]
mod moving;
#[path = "support/small_disk.rs"]
mod small_disk;
#[path = "producer/trees.rs"]
mod trees;
#[path = "producer/validation.rs"]
mod validation;
