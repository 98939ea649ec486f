//! The advice for a snapshot that none of the given identities opens.

use crate::base::error_chain::with_causes;
use crate::restore::RestoreError;

/// Returns the next step if the identities are the wrong ones. The stages report an archive that
/// could not be opened as text, so the text decides.
pub(crate) fn next_step(error: &RestoreError) -> Option<&'static str> {
    let is_wrong_key = with_causes(error).contains("none of the identities opens it");
    is_wrong_key.then_some(
        "see which recipients the snapshot was sealed to (`sealift list --json`), and try your other identity",
    )
}
