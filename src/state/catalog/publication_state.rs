//! What became of one snapshot on one target.

use std::fmt::{self, Display, Formatter};

/// What became of a snapshot on a target. A snapshot without a state is still to be shipped there.
///
/// `Display` and [`Self::parse`] use the text that the catalog stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicationState {
    /// Its manifest is there.
    Published,
    /// It will not be shipped there: too much of it is gone, or the target is newer than it.
    GivenUp,
    /// It was there and was deleted on purpose.
    Pruned,
    /// It was there and is gone, and no prune deleted it.
    Lost,
}

impl PublicationState {
    /// Returns the text that the catalog stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::GivenUp => "given up",
            Self::Pruned => "pruned",
            Self::Lost => "lost",
        }
    }

    /// Returns the state of a stored text, or `None` if no version of Sealift wrote it.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Published, Self::GivenUp, Self::Pruned, Self::Lost];
        all.into_iter().find(|state| state.as_str() == text)
    }
}

impl Display for PublicationState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
