//! `pin`: keeps a snapshot regardless of the retention policy.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::{Context, output};
use crate::base::ids::Stamp;
use crate::base::snapshot_choice::{BadChoice, SnapshotChoice, exact_name};
use crate::jobs::pin::{self, PinChange};

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The snapshot to keep, here and on the targets this machine prunes: a sequence, a stamp, a
    /// hash, latest, or a time such as yesterday
    #[arg(
        value_name = "SNAPSHOT",
        value_parser = SnapshotChoice::parse,
        required_unless_present_any = ["remove", "list"],
    )]
    snapshot: Option<SnapshotChoice>,
    /// A note about the pin, such as why
    #[arg(long, value_name = "TEXT", requires = "snapshot")]
    note: Option<String>,
    /// Unpin this snapshot, so that the policy decides on it again
    #[arg(long, value_name = "SNAPSHOT", value_parser = exact, conflicts_with = "snapshot")]
    remove: Option<SnapshotChoice>,
    /// Only show what is pinned
    #[arg(long, conflicts_with_all = ["snapshot", "remove"])]
    list: bool,
}

/// The snapshots that are pinned after the run.
#[derive(Debug, Serialize)]
struct PinnedSnapshots<'a> {
    pinned: BTreeSet<&'a Stamp>,
    notes: BTreeMap<&'a Stamp, &'a str>,
}

pub(super) fn run(context: &Context, args: &PinArgs) -> Result<Outcome, Failure> {
    let config = context.load_config()?;
    let change = match (&args.snapshot, &args.remove) {
        (Some(choice), _) => PinChange::Add(choice.clone(), args.note.clone()),
        (None, Some(choice)) => PinChange::Remove(choice.clone()),
        (None, None) => PinChange::None,
    };
    let all = pin::run(&config, &change, context)?;
    let noted = all.iter();
    let noted = noted.filter_map(|(stamp, note)| Some((stamp, note.as_deref()?)));
    let pinned = PinnedSnapshots {
        pinned: all.keys().collect(),
        notes: noted.collect(),
    };
    if context.json {
        output::print_json(&pinned)?;
        return Ok(Outcome::Complete);
    }
    for stamp in &pinned.pinned {
        match pinned.notes.get(stamp) {
            Some(note) => {
                let note = output::printable(note.as_bytes());
                output::print_line(format_args!("{stamp}  {note}"))?;
            }
            None => output::print_line(stamp)?,
        }
    }
    Ok(Outcome::Complete)
}

fn exact(text: &str) -> Result<SnapshotChoice, BadChoice> {
    SnapshotChoice::parse(&exact_name(text)?)
}
