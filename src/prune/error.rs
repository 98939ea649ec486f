//! Why a prune was not planned or not carried out.

use crate::format::manifest::ManifestName;
use crate::format::signature::SignatureError;
use crate::repository::RepositoryError;
use crate::retention::{NamedError, Refusal};
use crate::storage::TargetError;

/// Why a prune was not planned or not carried out.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The snapshots on the target cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A tombstone or mark could not be signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The plan looks wrong, or was not confirmed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A manifest cannot be read, so the objects that it needs are unknown.
    #[error(
        "the objects that {0} needs are unknown, so nothing is deleted: {1}. `verify` shows all that is wrong"
    )]
    Unreadable(ManifestName, String),
    /// Another program changed the target during the prune. Holds its label.
    #[error("{0} changed while it was looked at; run it again")]
    Changed(String),
    /// The signer may not prune. Holds its fingerprint.
    #[error(
        "a tombstone by {0} would not be believed: list that key for the host in allowed_signers, with the namespace \
         sealift-prune"
    )]
    Signer(String),
    /// A name is ambiguous, or its snapshot must stay.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// A mark needs a random name.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
}
