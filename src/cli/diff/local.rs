//! Compares snapshot directories of this host, or one with another directory.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::Context;
use super::super::failure::Failure;
use super::report::{DiffReport, DiffSide};
use super::{DiffArgs, Sides, is_meant, no_such_path};
use crate::base::ids::Stamp;
use crate::base::openat::Dir;
use crate::base::snapshot_choice::SnapshotChoice;
use crate::browse::difference::{ComparedSide, compare};
use crate::browse::live_tree::LiveTree;
use crate::jobs::local_snapshots;
use crate::producer;

pub(super) fn diff(
    context: &Context,
    args: &DiffArgs,
    sides: &Sides,
) -> Result<DiffReport, Failure> {
    if args.rows {
        return Err(
            Failure::usage("the numbers of rows are in sealed snapshots on a target")
                .hint("give the key holder's identity with --identity FILE"),
        );
    }
    let config = context.load_config()?;
    let find = |choice: &SnapshotChoice| local_snapshots::find(&config, choice, context);
    let first = find(&sides.from)?;
    let second = sides.to.as_ref().map(find).transpose()?;
    let mut before = LiveTree::read(Dir::open(&first)?, b"")?;
    let (mut after, of_after) = match (&second, &args.live) {
        (Some(path), _) => (LiveTree::read(Dir::open(path)?, b"")?, side_of(path)),
        (None, live) => {
            let live = live.as_deref().unwrap_or(Path::new("."));
            let tree = LiveTree::read(Dir::open(live)?, &sides.path)?;
            (tree, DiffSide::Live(live.to_owned()))
        }
    };
    let is_live = second.is_none();
    let takes = |path: &[u8]| is_meant(path, &sides.path) && !(is_live && path == sides.path);
    let one = std::mem::take(&mut before.entries);
    let other = std::mem::take(&mut after.entries);
    let has_path = |path: &[u8]| one.iter().chain(&other).any(|entry| entry.path == path);
    if !sides.path.is_empty() && !is_live && !has_path(&sides.path) {
        return Err(no_such_path(&sides.path));
    }
    let found = compare(
        one.into_iter().filter(|entry| takes(&entry.path)),
        other.into_iter().filter(|entry| takes(&entry.path)),
        |side, entry| match side {
            ComparedSide::Before => before.hash(&entry.path),
            ComparedSide::After => after.hash(&entry.path),
        },
    );
    let paths = std::iter::once(&first).chain(&second);
    let in_place: BTreeSet<String> = paths.flat_map(|path| producer::in_place_of(path)).collect();
    for to in in_place {
        context.note(format_args!(
            "{to} is read in place and not copied here: compare it on a target, with --identity"
        ));
    }
    before.skipped.append(&mut after.skipped);
    Ok(DiffReport {
        skipped: before.skipped,
        ..DiffReport::new(side_of(&first), of_after, found)
    })
}

fn side_of(path: &Path) -> DiffSide {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| name.parse::<Stamp>().ok()) {
        Some(stamp) => DiffSide::Snapshot(stamp, None),
        None => DiffSide::Live(path.to_owned()),
    }
}
