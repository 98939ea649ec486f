//! An `object_store` error as the source of ours.
//!
//! The messages of `object_store` repeat their sources all the way down. So [`StoreError`] displays
//! everything on one line and ends the chain.

use super::classify::kind_of;
use super::error_text::explain;
use super::tries::{Tries, counted};
use crate::storage::error::ErrorKind;

/// An `object_store` error with the number of tries of its request.
#[derive(Debug, thiserror::Error)]
#[error("{}", .tries.appended_to(explain(.error)))]
pub(crate) struct StoreError {
    error: object_store::Error,
    pub tries: Tries,
}

impl StoreError {
    /// Returns what the error means for the caller.
    pub(crate) fn kind(&self) -> ErrorKind {
        kind_of(&self.error)
    }

    /// The library's error.
    pub(crate) fn inner(&self) -> &object_store::Error {
        &self.error
    }

    /// Returns the library's error.
    pub(crate) fn into_inner(self) -> object_store::Error {
        self.error
    }
}

/// An error of which no tries are known.
impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        Self {
            error,
            tries: Tries::default(),
        }
    }
}

/// Awaits a call of `object_store` and counts the tries of its requests.
pub(crate) async fn attempt<T>(
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    let (result, tries) = counted(call).await;
    result.map_err(|error| StoreError { error, tries })
}
