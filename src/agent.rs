//! A push, from a produced snapshot to published manifests: the one place that sees packer, spool,
//! catalog and shipper together.
//!
//! Order: hold the state directory → look at every target (`looks` says at how much of it) → decide the lineage → ship what earlier
//! runs left → pack, shipping archives while they are sealed → publish → tidy the spool. Each target
//! advances on its own; one that fails stays behind and is told of, and the spool keeps what it lacks.

mod donors;
mod forget;
mod lanes;
mod local;
mod looks;
mod machine;
mod marks;
mod order;
mod publish;
mod push;
mod rebuild;
mod reconcile;
mod rest;
mod room;
mod shrink;
mod state;
mod stock;
mod survey;

pub use forget::LocalForget;
pub use local::{LocalPruned, LocalRetention};
pub use machine::machine_id;
pub use order::{OrderedSnapshot, in_order};
pub use push::{PushReport, PushRequest, Reporter, TargetReport, TargetState, push};
pub use rebuild::{Kept, Rebuild};
pub use reconcile::{adopt, begin_after};
pub use shrink::{ShrinkReport, is_gone, note_figures};
pub use state::State;

use std::sync::Arc;

use crate::catalog::CatalogError;
use crate::figures::MemoryError;
use crate::ids::{HostName, Stamp};
use crate::packer::PackError;
use crate::packer::seal::SealError;
use crate::producer::ProduceError;
use crate::retention::{NamedError, Refusal};
use crate::shipper::ShipError;
use crate::spool::SpoolError;
use crate::target::Target;

/// A configured destination.
#[derive(Debug, Clone)]
pub struct NamedTarget {
    /// The config's name of it; placements in the catalog go by it.
    pub name: String,
    pub target: Arc<dyn Target>,
    /// Uploads under way at once.
    pub concurrency: usize,
    /// Its credentials can neither list nor read.
    pub write_only: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("no target is configured: add a [[target]] to the config")]
    NoTarget,
    #[error("cannot {operation} {path}")]
    State {
        operation: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "sequence {0} is the last there is, and no snapshot can follow it: whoever published it can sign for this host. \
         Give the host another name and another signer"
    )]
    LastSequence(u64),
    #[error("another sealift is at work with the state directory {0}; wait for it to end")]
    Locked(String),
    #[error(
        "another machine pushes as host {host}: its snapshot {stamp} (sequence {sequence}) is on {target}. \
         If this machine takes over that name, run `sealift adopt`; else give this one another `host`"
    )]
    AnotherMachine {
        host: HostName,
        stamp: Stamp,
        sequence: u64,
        target: String,
    },
    #[error(
        "the state directory is new, and {target} can only be written to: nobody can see what this host pushed there \
         before. Say after which sequence to go on: `sealift adopt --after SEQUENCE` (0: it never pushed)"
    )]
    Unseen { target: String },
    #[error(
        "{target} cannot be looked at, so nobody can see what it has ({why}); run it again once it can be"
    )]
    NotSeen { target: String, why: String },
    #[error("cannot tell which machine this is")]
    Machine(#[source] std::io::Error),
    #[error("cannot start the network runtime")]
    Runtime(#[source] std::io::Error),
    #[error("the snapshots of host {host} on {target} cannot be read, so nothing was pushed")]
    Survey {
        host: HostName,
        target: String,
        #[source]
        source: Box<crate::repository::RepositoryError>,
    },
    #[error(transparent)]
    Produce(#[from] ProduceError),
    #[error(transparent)]
    Retention(#[from] Refusal),
    #[error(transparent)]
    Named(#[from] NamedError),
    #[error("no snapshot {text} is in {}; `sealift list` shows what there is", dir.display())]
    NotHere {
        text: String,
        dir: std::path::PathBuf,
    },
    #[error(
        "not every target is known to have snapshot {0}, so it may be here only; if it is to go nevertheless, say --yes"
    )]
    OnlyHere(Stamp),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Ship(#[from] ShipError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Figures(#[from] MemoryError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}
