//! The interface between an archive's pieces and the place they are written to.

use std::io;

use crate::restore::plan::Piece;

/// Takes the bytes of the pieces of one archive. Within a piece they come in order.
pub(in crate::restore) trait Sink: Send {
    /// Writes `bytes`, which begin `at` bytes into `piece`.
    fn write(&mut self, piece: &Piece, at: u64, bytes: &[u8]) -> io::Result<()>;
}
