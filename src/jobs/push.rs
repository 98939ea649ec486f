//! A push, from a produced snapshot to published manifests: the one place that sees packer, spool,
//! catalog and shipper together.
//!
//! Order: hold the state directory → look at every target → decide the lineage → ship what earlier
//! runs left → pack, shipping archives while they are sealed → publish → tidy the spool. Each target
//! advances on its own; one that fails stays behind and is told of, and the spool keeps what it lacks.

mod copy_sources;
mod error;
mod finish_target;
pub mod inspect_targets;
mod inventory;
pub mod lineage;
mod marks;
mod request;
mod run;
mod shrink_alarm;
mod spool_quota;
pub mod upload_order;
mod uploads;

pub use error::PushError;
pub use lineage::{adopt, begin_after};
pub use request::{PushReport, PushRequest, Target, TargetReport, TargetState};
pub use run::push;
pub use shrink_alarm::{ShrinkReport, is_gone, note_figures};
pub use upload_order::{OrderedSnapshot, in_order};
