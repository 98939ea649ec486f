//! The options that narrow which snapshot is meant.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::sync::Arc;

use clap::Args;

use super::Context;
use super::failure::Failure;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::format::chain::Chain;
use crate::jobs::choose;
use crate::repository::HostFolder;
use crate::restore::open::Identities;

/// `--before` and `--tag`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct NarrowArgs {
    /// Only snapshots made before this time: 2026-11-29, "2026-11-29 18:00", yesterday, "3 days
    /// ago", or a stamp
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Only snapshots with this tag; can be repeated, then with each of them
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

impl NarrowArgs {
    /// Returns `choice` within these bounds.
    pub(super) fn narrow(&self, choice: &SnapshotChoice) -> Result<SnapshotChoice, Failure> {
        let narrowed = choice.clone().narrowed(self.before.as_deref(), &self.tag);
        narrowed.map_err(Failure::usage)
    }
}

/// Returns the exact snapshot of `chain` that `choice` means, and notes which one a time or a tag
/// chose. Reads indexes, if it has tags.
pub(super) async fn exactly(
    context: &Context,
    folder: &HostFolder,
    chain: &Chain,
    choice: &SnapshotChoice,
    identities: &Arc<Identities>,
) -> Result<SnapshotChoice, Failure> {
    let exact = match (choice.tags(), chain.resolve(choice)) {
        ([], Ok(chosen)) => chosen,
        // The caller meets the same error, and knows what it was about to do.
        ([], Err(_)) => return Ok(choice.clone()),
        _ => choose::with_tags(folder, chain, choice, identities, context).await?,
    };
    if let Some(text) = choice.explain(exact.stamp()) {
        context.note(text);
    }
    // Without tags the caller decides again, and whether it can be sure.
    Ok(match choice.tags() {
        [] => choice.clone(),
        _ => exact.choice(),
    })
}

/// Returns the path as the index has it: relative, without `./` or slashes at the ends.
pub(super) fn snapshot_path(path: &Path) -> Vec<u8> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    });
    normal.collect::<Vec<_>>().join(&b'/')
}
