//! The irregularities of a host's folder, and why a folder has no chain.

use crate::base::ids::HostName;
use crate::format::known::Known;
use crate::format::manifest::ManifestName;

/// An irregularity of the folder that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The manifest cannot be believed, and why.
    #[error("manifest {0} is not acceptable: {1}")]
    Refused(ManifestName, String),
    /// Manifests that are sound, but signed by a key that is not trusted.
    #[error("{0}")]
    Stranger(StrangerManifests),
    /// Manifests with different cores have the same sequence.
    #[error("sequence {sequence} is forked: {names} both claim it (two machines under one name?)")]
    Fork {
        /// The sequence.
        sequence: u64,
        /// Names of the manifests.
        names: String,
    },
    /// A later manifest names a snapshot that the folder lacks.
    #[error(
        "snapshot {} (sequence {}): its manifest is missing, though a later snapshot refers to it",
        .0.stamp, .0.sequence
    )]
    Missing(Known),
    /// A manifest names, under a sequence that is here, a snapshot that is not.
    #[error("manifest {child} does not follow from {parent}, although that sequence is here")]
    Lineage {
        /// The later manifest.
        child: ManifestName,
        /// Stamp and sequence of the snapshot that it names.
        parent: String,
    },
    /// The pages of a manifest's earlier snapshots cannot be read, and why.
    #[error("cannot determine which snapshots were here before {0}: {1}")]
    History(ManifestName, String),
}

impl Finding {
    /// Returns the manifests that are here and are not believed.
    pub fn refused(&self) -> &[ManifestName] {
        match self {
            Self::Refused(name, _) => std::slice::from_ref(name),
            Self::Stranger(manifests) => &manifests.names,
            _ => &[],
        }
    }

    /// Returns the next step for the reader; `None` if it depends on the command.
    pub fn next(&self) -> Option<&'static str> {
        match self {
            Self::Stranger(manifests) => Some(manifests.next()),
            _ => None,
        }
    }
}

/// The manifests of one signer who is not trusted. Each is sound otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrangerManifests {
    /// The signer's fingerprint, `SHA256:…`.
    pub signer: String,
    /// The manifests, by name; at least one.
    pub names: Vec<ManifestName>,
    /// The sequence of the newest believed manifest; `None` if there is none.
    pub newest_believed: Option<u64>,
}

impl StrangerManifests {
    /// Whether one of the manifests is not older than every believed one.
    pub fn are_newest(&self) -> bool {
        let newest = self.names.last().map(|name| name.sequence);
        newest >= self.newest_believed
    }

    /// Returns the next step for the reader.
    pub fn next(&self) -> &'static str {
        match self.are_newest() {
            true => NEXT_OF_NEWER,
            false => NEXT_OF_OLDER,
        }
    }
}

/// The next step if the newest snapshots are signed by a stranger.
const NEXT_OF_NEWER: &str = "on the host, compare the fingerprint (`ssh-keygen -lf /etc/sealift/signer.pub`). If it is the host's new \
     signer, trust both: --signer FILE with an allowed_signers file that lists the old and the new one, or \
     `sealift remote trust`. If not, someone else writes to this target";
const NEXT_OF_OLDER: &str = "if that was the host's signer then (see the paper page, or `allowed_signers` on the host), trust both: --signer FILE \
     with an allowed_signers file that lists the old and the new one, or `sealift remote trust`";

impl std::fmt::Display for StrangerManifests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signer = &self.signer;
        match self.names.as_slice() {
            [first, .., last] => write!(
                f,
                "{} snapshots (sequence {} to {}, {} to {}) are refused: they are signed by {signer}, which is not a \
                 trusted signer",
                self.names.len(),
                first.sequence,
                last.sequence,
                first.stamp,
                last.stamp,
            )?,
            [only] => write!(
                f,
                "manifest {only} is refused: it is signed by {signer}, which is not a trusted signer"
            )?,
            [] => {}
        }
        match self.are_newest() {
            true => write!(f, " and was introduced by none"),
            false => write!(f, " (an earlier signer of the host?)"),
        }
    }
}

/// Why a folder has no chain, or a chain does not have the requested snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The folder has no manifest.
    #[error("no manifest of host {0} is here")]
    Empty(HostName),
    /// No manifest is believed.
    #[error("none of the {count} manifests of host {host} is acceptable; the newest: {newest}")]
    NothingVerified {
        /// The host.
        host: HostName,
        /// Number of its manifests.
        count: usize,
        /// The finding about the newest.
        newest: String,
        /// Fingerprints of the signers of sound manifests; the last is that of the newest.
        signers: Vec<String>,
    },
    /// Without a pinned signer, nothing says which of several to trust.
    #[error(
        "host {host} has manifests by unrelated signers ({signers}): \
         pin the right one with --signer"
    )]
    SeveralSigners {
        /// The host.
        host: HostName,
        /// Fingerprints of the signers.
        signers: String,
    },
    /// No snapshot is the requested one.
    #[error("no snapshot {wanted} on this target{near}")]
    NoSuchSnapshot {
        /// The request.
        wanted: String,
        /// `; the newest is …`, or the ones nearest to a date.
        near: String,
    },
    /// Several different snapshots match the request.
    #[error(
        "{text} is ambiguous, sequence {sequence} is forked: \
         choose one of {names} (by its last 16 digits)"
    )]
    Ambiguous {
        /// The request.
        text: String,
        /// The forked sequence.
        sequence: u64,
        /// Names of the manifests that match.
        names: String,
    },
}
