//! A read that does not fit the object's size.

use std::io;

/// Why a read is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum SizeError {
    #[error("it has {bytes} bytes, more than the {limit} expected")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the range is beyond its end ({bytes} bytes)")]
    BeyondEnd { bytes: u64 },
}

impl From<SizeError> for io::Error {
    fn from(error: SizeError) -> Self {
        let kind = match error {
            SizeError::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            SizeError::BeyondEnd { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
