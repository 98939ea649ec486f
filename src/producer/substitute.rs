//! A snapshot that this host makes because AtoCore did not.

use super::error::SourceError;
use super::taken_source::TakenSource;
use crate::base::error_chain::with_causes;
use crate::config::Source;
use crate::format::index::Skipped;

/// Why this host copies what AtoCore should have copied.
pub(super) struct Substitute<'a> {
    /// Why AtoCore did not.
    pub cause: &'a SourceError,
    /// The requested source that is not copied: AtoCore may write to it. `None`: all are copied.
    pub refused: Option<&'a Source>,
}

impl Substitute<'_> {
    /// Adds the source that is not copied, and notes at the required one how it was copied.
    pub(super) fn note(&self, taken: &mut Vec<TakenSource>) {
        taken.extend(
            self.refused
                .map(|source| TakenSource::failed(source, &SourceError::Unguarded)),
        );
        let mut present = taken.iter_mut().filter(|one| one.entry.present);
        if let Some(one) = present.next() {
            one.skipped.push(Skipped {
                path: one.entry.to.clone(),
                reason: format!(
                    "taken in full, but by this host and not by AtoCore: {}. Next: {}",
                    with_causes(self.cause),
                    self.cause.next()
                ),
            });
        }
    }
}
