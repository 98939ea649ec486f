//! Why a host's folder, or an object in it, cannot be used.

use crate::base::ids::Hash;
use crate::format::chain::ChainError;
use crate::format::manifest::{ManifestError, ManifestName};
use crate::storage::TargetError;

/// Why a host's folder, or an object in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The target failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The manifests form no chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A page of the archive table has other content than its name says.
    #[error("page {page} of the archive table hashes to {found}: it is damaged or forged")]
    PageHash {
        /// The page's name.
        page: Hash,
        /// SHA-256 of its content.
        found: Hash,
    },
    /// A page of the archive table hashes to its name but cannot be parsed.
    #[error("page {page} of the archive table is malformed")]
    PageFormat {
        /// The page's name.
        page: Hash,
        /// The parser's reason.
        #[source]
        source: ManifestError,
    },
    /// A page of earlier snapshots, or a directory of such pages, cannot be used.
    #[error("page {page} of earlier snapshots cannot be used: {what}")]
    Known {
        /// The page's or directory's name.
        page: Hash,
        /// What is wrong with it.
        what: String,
    },
    /// The manifest changed between two reads.
    #[error("manifest {0} is not what it was a moment ago: run it again")]
    Replaced(ManifestName),
    /// Pages of one archive table do not fit together.
    #[error("the archive table of {manifest} contradicts itself: {what}")]
    Table {
        /// The snapshot.
        manifest: ManifestName,
        /// The contradiction.
        what: String,
    },
}
