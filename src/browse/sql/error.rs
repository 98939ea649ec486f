//! Why a database in a snapshot cannot be queried.

use std::io;
use std::time::Duration;

use crate::base::sqlite::PagedQueryError;
use crate::restore::RangeError;

/// Why content of a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentReadError {
    /// An archive cannot be read.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The query would fetch more than it may.
    #[error("the query needs more of {target} than it may fetch")]
    TooMuch {
        /// The target's label.
        target: String,
    },
    /// The target takes too long.
    #[error("{target} did not answer in the {} s that were left of the query's time", .left.as_secs())]
    Late {
        /// The target's label.
        target: String,
        /// The time that was left.
        left: Duration,
    },
    /// The file in the snapshot directory cannot be read.
    #[error("cannot read the database")]
    File(#[source] io::Error),
}

/// Why a database in a snapshot cannot be queried.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The file does not begin as a database does.
    #[error("it is not an SQLite database")]
    NotADatabase,
    /// Content cannot be read.
    #[error(transparent)]
    Content(ContentReadError),
    /// The query failed.
    #[error(transparent)]
    Query(PagedQueryError<ContentReadError>),
}

impl From<ContentReadError> for SqlError {
    fn from(error: ContentReadError) -> Self {
        Self::Content(error)
    }
}

impl From<PagedQueryError<ContentReadError>> for SqlError {
    fn from(error: PagedQueryError<ContentReadError>) -> Self {
        match error {
            PagedQueryError::Content(error) => Self::Content(error),
            other => Self::Query(other),
        }
    }
}
