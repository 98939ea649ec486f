//! restore
pub mod open;
