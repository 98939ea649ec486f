//! How far the publication on one target came, and what the operator reads about it.

use super::super::inspect_targets::InspectedTarget;
use crate::base::error_chain::with_causes;
use crate::format::manifest::ManifestName;
use crate::shipper::ShipError;
use crate::storage::is_full;

/// How far the publication on one target came.
#[derive(Default)]
pub(super) struct PublishResult {
    /// Why the target stays behind, with causes; `None`: it has the new snapshot.
    pub failure: Option<String>,
    /// Warnings that name one snapshot or one event.
    pub warnings: Vec<String>,
    /// Archives that were copied from other targets.
    pub copied: u64,
    /// Stamps of snapshots that the target will never have.
    pub given_up: Vec<String>,
    /// Stamps of snapshots that the target may have later.
    pub postponed: Vec<String>,
    /// Stamps of snapshots that the target has no room for.
    pub crowded_out: Vec<String>,
    /// Stamps of snapshots, between those of the target, that the spool no longer has.
    pub forgotten: Vec<String>,
}

impl PublishResult {
    /// Returns all warnings about the target `name`.
    pub(super) fn into_warnings(self, name: &str, label: &str) -> Vec<String> {
        let mut warnings = self.warnings;
        if !self.given_up.is_empty() {
            warnings.push(format!(
                "{label} will not have {}: what they need is no longer in the spool, nor on another target that can be \
                 read. It begins again with the newest",
                snapshots(&self.given_up)
            ));
        }
        if !self.postponed.is_empty() {
            warnings.push(format!(
                "{label} lacks {}: what they need is no longer in the spool, and a target that may have it does not \
                 answer now. The next backup tries again",
                snapshots(&self.postponed)
            ));
        }
        if !self.crowded_out.is_empty() {
            warnings.push(format!(
                "{label} lacks {}: there is no room for what they need. {MAKE_ROOM}; the next backup tries again",
                snapshots(&self.crowded_out)
            ));
        }
        if !self.forgotten.is_empty() {
            warnings.push(format!(
                "{label} lacks {}, which the spool no longer has: `sealift sync FROM {name}` brings what another target has",
                snapshots(&self.forgotten)
            ));
        }
        warnings
    }
}

const MAKE_ROOM: &str = "`sealift prune` makes room there";

/// Returns the error and its causes in one line, with the next step if the target is full.
pub(super) fn with_next_step(error: &ShipError) -> String {
    let text = with_causes(error);
    match is_full(error) {
        true => format!("{text}. {MAKE_ROOM}"),
        false => text,
    }
}

/// Returns `snapshot A`, or `snapshots A, B and 3 more`.
fn snapshots(stamps: &[String]) -> String {
    const NAMED: usize = 8;
    let named = stamps.iter().take(NAMED).cloned().collect::<Vec<_>>();
    let more = match stamps.len().saturating_sub(NAMED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let plural = if stamps.len() == 1 { "" } else { "s" };
    format!("snapshot{plural} {}{more}", named.join(", "))
}

/// Returns the warning that another machine published under the sequence of the new snapshot.
pub(super) fn fork_warning(inspected: &InspectedTarget, siblings: &[ManifestName]) -> String {
    let others: Vec<String> = siblings.iter().map(ManifestName::to_string).collect();
    format!(
        "{}: {} was published beside ours, under the same sequence: two machines push under one name. \
         Stop one of them, or give it another `host`; then run `sealift adopt` on the one that stays",
        inspected.folder.target.label(),
        others.join(", ")
    )
}
