//! Why sealing failed.

use std::io;

use crate::keys::recipients::RecipientError;
use crate::state::spool::{Spool, SpoolError};

/// Why an archive could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The recipients cannot be used.
    #[error(transparent)]
    Recipients(#[from] RecipientError),
    /// zstd reported an error.
    #[error("compressing failed")]
    Compress(#[source] io::Error),
    /// A compressed frame does not decompress to its content.
    #[error(
        "a compressed frame does not decompress to its original content \
         (bad memory or disk?); nothing was stored"
    )]
    FrameMismatch,
    /// The object on disk is not age with one stanza per recipient.
    #[error("the sealed object is not age with {expected} stanzas: {found}; nothing was stored")]
    NotSealed {
        /// Number of recipients.
        expected: usize,
        /// The difference.
        found: String,
    },
    /// The spool's file cannot be written or read.
    #[error("cannot write a sealed archive into the spool {spool} (is the disk full?)")]
    Write {
        /// The spool's directory.
        spool: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The spool cannot take the object.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The system starts no further thread.
    #[error("cannot start a thread for sealing")]
    Thread(#[source] io::Error),
    /// A thread ended without reporting why.
    #[error("a sealing thread ended early")]
    ThreadGone,
}

/// Returns the conversion of an I/O error in a file of `spool`.
pub(super) fn unwritten(spool: &Spool) -> impl FnOnce(io::Error) -> SealError + use<> {
    let spool = spool.dir().display().to_string();
    |source| SealError::Write { spool, source }
}
