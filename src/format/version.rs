//! The version of everything that is stored on a target.

/// Format version that this program writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
