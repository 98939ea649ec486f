//! Turns tar streams into sealed archives: `tar stream → zstd → age → spool`.
//!
//! The packer's thread cuts the tar stream into stretches of 8 MiB. A few workers compress each to
//! a frame or to several, and compare what these decompress to before they let it through; one
//! writer puts them in order, encrypts, hashes, and publishes the finished object in the spool.
//! Every stretch is in one of a fixed number of buffers, so memory is bounded.
//!
//! Each written object is then parsed again as age, and its stanzas counted: no object leaves the
//! host that is not sealed to exactly its recipients.

mod compress;
mod error;
mod object_writer;
mod pipeline;
mod publish;
mod work;

pub use crate::keys::recipients::Recipients;
pub use error::SealError;
pub use pipeline::Sealer;
pub use publish::SealedArchive;
pub use work::{FRAME_BYTES, Texture};
