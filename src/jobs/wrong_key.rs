//! The advice for a snapshot that none of the given identities can decrypt.

use crate::restore::RestoreError;

/// Returns the next step if the identities are the wrong ones.
pub(crate) fn next_step(error: &RestoreError) -> Option<&'static str> {
    error
        .lacks_identity()
        .then_some("give the identity of one of these recipients with --identity")
}
