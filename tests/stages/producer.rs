//! The producer, on real databases, trees and commands: what a snapshot holds, and when there is none.

mod atocore;
mod chosen;
mod databases;
mod hooks;
mod host;
mod local;
mod moving;
mod quiesce;
mod trees;
mod validation;
