//! `pin`: keeps a snapshot regardless of the retention policy.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::{Context, output};
use crate::base::ids::Stamp;
use crate::state::pins;

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The snapshot to keep, here and on the targets this machine prunes
    #[arg(value_name = "STAMP", required_unless_present_any = ["remove", "list"])]
    stamp: Option<Stamp>,
    /// Unpin this snapshot, so that the policy decides on it again
    #[arg(long, value_name = "STAMP", conflicts_with = "stamp")]
    remove: Option<Stamp>,
    /// Only show what is pinned
    #[arg(long, conflicts_with_all = ["stamp", "remove"])]
    list: bool,
}

/// The snapshots that are pinned after the run.
#[derive(Debug, Serialize)]
struct PinnedSnapshots<'a> {
    pinned: &'a BTreeSet<Stamp>,
}

pub(super) fn run(context: &Context, args: &PinArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let mut all = pins::read(&config.state)?;
    if let Some(stamp) = args.stamp {
        all.insert(stamp);
    }
    if let Some(stamp) = args.remove
        && !all.remove(&stamp)
    {
        return Err(Failure::from_error(format!("{stamp} is not pinned")));
    }
    if !args.list {
        pins::write(&config.state, &all)?;
    }
    match context.json {
        true => output::print_json(&PinnedSnapshots { pinned: &all })?,
        false => all.iter().try_for_each(output::print_line)?,
    }
    Ok(Outcome::Complete)
}
