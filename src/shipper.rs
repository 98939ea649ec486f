//! Moves sealed objects from the spool to a target, and from target to target.
//!
//! Archives go up while packing goes on ([`ship_archives`]); then [`publish_all`] makes the
//! snapshots visible. An archive that the spool no longer has comes from another target ([`copy`]),
//! and [`sync`](mod@sync) copies whole snapshots. The shipper never holds an identity: it moves
//! ciphertext and believes it by its hash.

pub mod copy;
mod error;
mod publish;
pub mod sync;
mod upload;

pub use error::{CopyError, ShipError};
pub use publish::{
    CrowdedOut, Publication, Published, Support, publish, publish_all, publish_recovery,
};
pub use upload::{Sealed, SpoolBody, UploadTracker, ship_archives};
