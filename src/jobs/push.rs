//! A push, from a produced snapshot to published manifests.
//!
//! It connects packer, spool, catalog and shipper, in this order:
//!
//! 1. The caller holds the state directory.
//! 2. Look at every target ([`inspect_targets`]; [`looks`] decides at how much of it) and determine
//!    the snapshot's place in the chain ([`lineage`]).
//! 3. Begin to ship the archives that earlier runs left in the spool.
//! 4. Pack, and ship each archive as soon as it is sealed.
//! 5. Publish on each target once its uploads have ended, and tidy the spool.
//!
//! Targets advance independently. If one fails, the push reports it and keeps its missing objects
//! in the spool.

pub(crate) mod carried_over;
pub(crate) mod catch_up;
mod copy_sources;
mod error;
mod finish_target;
pub mod inspect_targets;
mod introduction;
mod inventory;
pub mod lineage;
mod look;
pub mod looks;
mod marks;
mod receipt_key;
mod request;
mod resealing;
mod rest;
mod run;
mod shrink_alarm;
mod spool_quota;
mod tidy_spool;
pub mod upload_order;
mod uploads;

pub use error::PushError;
pub(super) use finish_target::newest_snapshot::waiting_snapshots;
pub(crate) use introduction::PresentSigner;
pub use lineage::{adopt, begin_after};
pub use request::{PushReport, PushRequest, Target, TargetAnswer, TargetReport, TargetState};
pub use resealing::Resealing;
pub(crate) use resealing::resealing;
pub use run::push;
pub use shrink_alarm::{ShrinkReport, is_gone, note_figures};
pub use upload_order::{OrderedSnapshot, in_order};
