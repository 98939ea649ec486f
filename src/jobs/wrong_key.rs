//! The advice for a snapshot that none of the given identities can decrypt.

use crate::restore::RestoreError;

/// Returns the next step if the identities are the wrong ones.
pub(crate) fn next_step(error: &RestoreError) -> Option<&'static str> {
    error.lacks_identity().then_some(
        "see which recipients the snapshot is encrypted to (`sealift list --json`), and try your other identity",
    )
}
