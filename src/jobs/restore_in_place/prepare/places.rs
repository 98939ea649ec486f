//! The names and places of a planned item.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::super::candidate::InPlaceCandidate;
use super::super::digest;
use super::super::plan::{ItemKind, OldContent, PlannedItem, PlannedPlace, ThingId};
use super::super::slot::Slot;
use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::openat::{Dir, Meta};
use crate::config::{Check, Config, Preserve, SourceKind};
use crate::jobs::error::JobError;

/// Longest name of a file.
const NAME_BYTES: usize = 255;

/// Returns the first stamp from now on that no safety copy has.
pub(super) fn safety_stamp(
    config: &Config,
    candidates: &[InPlaceCandidate<'_>],
) -> Result<Stamp, JobError> {
    let mut stamp = Stamp::at(clock::now())?;
    for _ in 0..10_000 {
        let mut is_free = true;
        for one in candidates {
            for kind in [SAFETY, FAILED, DISCARDED] {
                let beside = one.live.with(format!(".{kind}-{stamp}").as_bytes());
                is_free &= !beside.is_taken()?;
                if let Some(dir) = &config.restore.preserve_dir {
                    is_free &= match Dir::open(dir) {
                        Ok(dir) => dir.try_meta(format!("{kind}-{stamp}"))?.is_none(),
                        Err(_) => true,
                    };
                }
            }
        }
        if is_free {
            break;
        }
        stamp = stamp.next();
    }
    Ok(stamp)
}

const SAFETY: &str = "pre-restore";
const FAILED: &str = "failed-restore";
const DISCARDED: &str = "post-restore";

/// Plans one item: the names beside its live path, and the places of its old content.
pub(super) fn item(
    config: &Config,
    preserve: Preserve,
    one: &InPlaceCandidate<'_>,
    id: &str,
    stamp: Stamp,
) -> Result<PlannedItem, JobError> {
    let name = one.live.name().as_bytes();
    let beside = |kind: &str| {
        let ending = format!(".sealift-{kind}-{id}");
        // Room for the endings of a database's sidecars, and for the dot.
        let kept = &name[..name.len().min(NAME_BYTES - ending.len() - 16)];
        format!(".{}{ending}", String::from_utf8_lossy(kept))
    };
    let is_across = match &config.restore.preserve_dir {
        None => false,
        Some(dir) => {
            let (nearest, own) = (Dir::resolve(dir)?.dir, &one.live.dir);
            let is_other = Meta::of_fd(&nearest)?.dev() != Meta::of_fd(own)?.dev();
            is_other || nearest.mount_id() != own.mount_id()
        }
    };
    let place = |kind: &str, dir: Option<&PathBuf>| match dir {
        Some(dir) => PlannedPlace {
            base: dir.clone(),
            rel: format!("{kind}-{stamp}/{}", one.source.to),
        },
        None => PlannedPlace {
            base: one.live.dir.path().to_owned(),
            rel: format!("{}.{kind}-{stamp}", String::from_utf8_lossy(name)),
        },
    };
    let dir = config.restore.preserve_dir.as_ref();
    // What comes back out of the way is renamed, so it stays on its file system.
    let near = dir.filter(|_| !is_across);
    let old = match &one.there {
        None => None,
        Some(meta) => Some(OldContent {
            id: ThingId::of(meta),
            bytes: occupied(&one.live, meta)?,
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.permissions(),
        }),
    };
    let is_tree = one.kind == ItemKind::Tree;
    Ok(PlannedItem {
        name: one.source.name.clone(),
        kind: one.kind,
        to: one.source.to.clone(),
        live: one.live.path(),
        staged: beside("new"),
        aside: beside("old"),
        safety: place(SAFETY, dir),
        failed: place(FAILED, near),
        discarded: place(DISCARDED, near),
        copies: preserve == Preserve::Copy || is_across,
        owner: one.source.owner.filter(|_| !is_tree),
        mode: one.source.mode.filter(|_| !is_tree),
        is_lenient: matches!(&one.source.kind, SourceKind::Tree(tree) if tree.check == Check::Report),
        leaves_out: matches!(&one.source.kind, SourceKind::Tree(tree) if tree.filter.leaves_out()),
        files: one.content.files,
        bytes: one.content.bytes,
        old,
    })
}

/// Returns the bytes of what is at `slot`.
fn occupied(slot: &Slot, meta: &Meta) -> std::io::Result<u64> {
    if !meta.is_dir() {
        return Ok(meta.size());
    }
    let mut bytes = 0u64;
    for found in digest::entries(&slot.open_dir()?)? {
        let (_, meta) = found?;
        if meta.is_file() {
            bytes = bytes.saturating_add(meta.size());
        }
    }
    Ok(bytes)
}
