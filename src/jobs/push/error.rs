//! Why a push, or another job on its lineage, cannot go on.

use crate::base::ids::{HostName, Stamp};
use crate::packer::PackError;
use crate::packer::seal::SealError;
use crate::producer::ProduceError;
use crate::repository::RepositoryError;
use crate::shipper::ShipError;
use crate::state::catalog::CatalogError;
use crate::state::figures::MemoryError;
use crate::state::spool::SpoolError;

/// Why a push, `adopt`, or a rebuild of the catalog failed as a whole. A failure of one target is
/// part of the report.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The configuration names no target.
    #[error("no target is configured: add a [[target]] to the config")]
    NoTarget,
    /// A step in the state directory failed.
    #[error("cannot {operation} {path}")]
    State {
        /// A verb phrase that the path completes.
        operation: &'static str,
        /// The file or directory.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The highest sequence that a manifest may have is in use.
    #[error(
        "sequence {0} is the last possible one, so no snapshot can follow it: a holder of a trusted signer published \
         it. Give the host another name and another signer"
    )]
    LastSequence(u64),
    /// The newest snapshot on a target is another machine's.
    #[error(
        "another machine pushes as host {host}: its snapshot {stamp} (sequence {sequence}) is on {target}. \
         If this machine takes over that name, run `sealift adopt`; else give this one another `host`"
    )]
    AnotherMachine {
        /// The name that both use.
        host: HostName,
        /// Stamp of the other machine's snapshot.
        stamp: Stamp,
        /// Its sequence.
        sequence: u64,
        /// Label of the target that holds it.
        target: String,
    },
    /// The signer was exchanged, and nothing leads the readers to the new one.
    #[error(
        "nothing introduces the signer {signer} to the readers of this host's backups: the newest snapshot was signed by \
         {before}, so those who trust that one would refuse every new snapshot"
    )]
    NotIntroduced {
        /// Fingerprint of the configured signer.
        signer: String,
        /// Fingerprint of the signer of the newest snapshot.
        before: String,
    },
    /// A new state directory meets a target whose past cannot be read.
    #[error(
        "the state directory is new, and {target} can only be written to, so earlier snapshots there cannot be seen. \
         Say after which sequence to go on: `sealift adopt --after SEQUENCE` (0: it never pushed)"
    )]
    Unseen {
        /// Label of the target.
        target: String,
    },
    /// A rebuild needs every target, and this one did not answer.
    #[error(
        "{target} cannot be looked at, so its snapshots are unknown ({why}); run it again once it answers"
    )]
    NotSeen {
        /// Label of the target.
        target: String,
        /// The failure and its causes.
        why: String,
    },
    /// The machine's id cannot be read or made.
    #[error("cannot tell which machine this is")]
    Machine(#[source] std::io::Error),
    /// No threads or descriptors for the runtime.
    #[error("cannot start the network runtime")]
    Runtime(#[source] std::io::Error),
    /// A target answered with manifests that cannot be read.
    #[error("the snapshots of host {host} on {target} cannot be read, so nothing was pushed")]
    Inspect {
        /// The host whose folder was read.
        host: HostName,
        /// Label of the target.
        target: String,
        /// What failed there.
        #[source]
        source: Box<RepositoryError>,
    },
    /// The local snapshots cannot be read.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// Packing failed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Shipping failed for a reason that is no target's.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The memory of the sources' figures failed.
    #[error(transparent)]
    Figures(#[from] MemoryError),
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}
