//! JSON as the format has it: one value on a line, without blanks, keys in a fixed order.

use serde::{Deserialize, Serialize};

use crate::format::version::FORMAT;

/// Why a manifest, a table page or a mark is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes do not have the shape that the format requires.
    #[error("the manifest is malformed: {0}")]
    Malformed(String),
    /// The object is of another format version.
    #[error("the manifest is of format {0}; this sealift reads format {FORMAT}: use a newer one")]
    Format(u32),
    /// `requires` names features that this program does not know.
    #[error("the manifest needs features this sealift lacks ({0}): use a newer one")]
    Requires(String),
    /// The manifest names more pages or directories than the bounds of [`super::known`] allow.
    #[error("the manifest names more pages of earlier snapshots than a reader accepts")]
    TooManyKnown,
    /// The object's content does not have the hash, sequence or stamp in its name.
    #[error("the manifest's name promises {promised}, its content is {found}")]
    NameMismatch {
        /// The object's name.
        promised: String,
        /// The name that its content would have.
        found: String,
    },
}

/// Parses one line.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(line).map_err(|e| ManifestError::Malformed(e.to_string()))
}

/// Serializes a value of ours, which cannot fail: no map has odd keys, and a `Vec` takes every
/// write.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
