//! Decides which prune marks the next snapshot follows.
//!
//! To follow a mark is to use none of the archives that it names, and to list it. A mark has no
//! force until a manifest lists it, so it is always safe to ignore one: its archives are merely not
//! deleted. To follow a planted mark is not safe: one manifest goes to every target, so an archive
//! that one target is about to delete is stored again on all of them if its content is needed
//! again. So a mark is followed only if
//!
//! - it is signed by a key that may prune; or it is not signed at all (marks of November 2026 and
//!   earlier), and the unsigned marks are few and name a small part of the stored bytes;
//! - and it names no archive that the newest snapshot on its target, or the newest of all, needs. A
//!   prune that sees all snapshots marks none of those; one that was shown only a part of them
//!   might.

use std::collections::HashSet;

use super::error::PushError;
use super::inspect_targets::{InspectedTarget, TargetInventory};
use crate::base::ids::{Hash, ObjectKey};
use crate::format::manifest::Manifest;
use crate::format::statement::Vouched;
use crate::repository::{HostFolder, SeenMark, parse_page};
use crate::state::State;
use crate::state::catalog::SnapshotRow;

/// Most unsigned marks of one target that are followed.
const MOST_UNSIGNED: usize = 16;
/// Unsigned marks may name this part of the bytes of all archives that the host knows.
const UNSIGNED_PERCENT: u64 = 10;
/// Most ignored marks of one target that are reported one by one.
const MOST_REPORTED: usize = 20;

/// The marks that the next snapshot follows.
#[derive(Debug, Default)]
pub(super) struct FollowedMarks {
    /// Their names, for the manifest's `marks_seen`.
    pub names: Vec<String>,
    /// The archives that they name; the next snapshot uses none of them.
    pub archives: HashSet<Hash>,
    /// About marks that cannot be followed now.
    pub notes: Vec<String>,
    /// About marks that are ignored; the run exits with code 3.
    pub warnings: Vec<String>,
}

/// Decides about every mark on every target.
pub(super) async fn judge(
    state: &State,
    inspected_targets: &[InspectedTarget],
) -> Result<FollowedMarks, PushError> {
    let mut followed = FollowedMarks::default();
    let seen = inspected_targets
        .iter()
        .filter_map(|s| Some((s, s.seen.as_ref().ok()?)));
    let marked: Vec<(&InspectedTarget, &TargetInventory)> = seen
        .filter(|(_, seen)| !seen.marks.seen.is_empty() || seen.marks.unread > 0)
        .collect();
    if marked.is_empty() {
        return Ok(followed);
    }
    let rows = state.catalog.snapshots()?;
    let newest = needed_by_newest(state, inspected_targets, &rows).await;
    for (inspected, seen) in marked {
        let here = needed_on(inspected, seen, &rows).await;
        let judge = Judge {
            here: here.as_ref(),
            anywhere: newest.as_ref(),
            unsigned: unsigned_share(state, seen)?,
        };
        let label = inspected.folder.target.label();
        let mut ignored: Vec<String> = Vec::new();
        for one in &seen.marks.seen {
            match judge.verdict(one) {
                MarkVerdict::Follow => {
                    followed.names.push(one.name.to_string());
                    followed.archives.extend(&one.mark.archives);
                }
                MarkVerdict::Wait(why) => followed.notes.push(ignored_mark(label, one, &why)),
                MarkVerdict::Refuse(why) => ignored.push(ignored_mark(label, one, &why)),
            }
        }
        if let more @ 1.. = ignored.len().saturating_sub(MOST_REPORTED) {
            ignored.truncate(MOST_REPORTED);
            ignored.push(format!(
                "{label}: and {more} more prune marks like these were ignored"
            ));
        }
        if seen.marks.unread > 0 {
            ignored.push(format!(
                "{label}: {} more prune marks were not read, for there are too many or they are too large: see who \
                 writes there, and remove them from marks/ (`sealift prune` writes those again that are needed)",
                seen.marks.unread
            ));
        }
        followed.warnings.extend(ignored);
    }
    followed.names.sort();
    followed.names.dedup();
    Ok(followed)
}

fn ignored_mark(label: &str, one: &SeenMark, why: &str) -> String {
    format!("{label}: prune mark {} is ignored: {why}", one.name)
}

enum MarkVerdict {
    /// List it.
    Follow,
    /// Nothing is wrong with it, but it cannot be followed now. Says why.
    Wait(String),
    /// It may be planted. Says why.
    Refuse(String),
}

/// What the marks of one target are compared with.
struct Judge<'a> {
    /// The archives of the target's newest snapshot; `None`: they could not be read.
    here: Option<&'a HashSet<Hash>>,
    /// The archives of the newest snapshot of all; `None`: they could not be read.
    anywhere: Option<&'a HashSet<Hash>>,
    unsigned: Unsigned,
}

impl Judge<'_> {
    fn verdict(&self, one: &SeenMark) -> MarkVerdict {
        if let Vouched::Stranger(why) = &one.vouched {
            return MarkVerdict::Refuse(format!("{why}. See who writes there"));
        }
        let is_signed = one.vouched == Vouched::Signer;
        if !is_signed && self.unsigned.is_too_much() {
            return MarkVerdict::Refuse(format!("it is not signed, and {}", self.unsigned.why()));
        }
        let (Some(here), Some(anywhere)) = (self.here, self.anywhere) else {
            return MarkVerdict::Wait(
                "the archives of the newest snapshot could not be read".to_owned(),
            );
        };
        let names = |needed: &HashSet<Hash>| one.mark.archives.iter().any(|a| needed.contains(a));
        match (names(here), names(anywhere)) {
            (false, false) => MarkVerdict::Follow,
            // The signer did not see our newest snapshot, which may not have been on its target.
            (false, true) if is_signed => MarkVerdict::Wait(
                "it names archives that a newer snapshot needs again; the next prune writes it again".to_owned(),
            ),
            _ => MarkVerdict::Refuse(
                "it names archives that the newest snapshot needs, which no prune marks. See who writes there; \
                 `sealift prune` replaces it"
                    .to_owned(),
            ),
        }
    }
}

/// The unsigned marks of one target.
struct Unsigned {
    count: usize,
    /// Bytes of the archives that they name and the host knows.
    bytes: u64,
    /// Bytes of all archives that the host knows.
    all_bytes: u64,
}

impl Unsigned {
    fn is_too_much(&self) -> bool {
        let limit = self.all_bytes.saturating_mul(UNSIGNED_PERCENT);
        self.count > MOST_UNSIGNED || self.bytes.saturating_mul(100) > limit
    }

    fn why(&self) -> String {
        match self.count > MOST_UNSIGNED {
            true => format!("{} of them are there. See who writes there", self.count),
            false => format!(
                "such marks name {} of the {} bytes that this host has stored. If an older sealift wrote it, \
                 `sealift prune` replaces it with a signed one; else see who writes there",
                self.bytes, self.all_bytes
            ),
        }
    }
}

fn unsigned_share(state: &State, seen: &TargetInventory) -> Result<Unsigned, PushError> {
    let unsigned = seen
        .marks
        .seen
        .iter()
        .filter(|one| one.vouched == Vouched::Nobody);
    let named: HashSet<Hash> = unsigned
        .clone()
        .flat_map(|one| one.mark.archives.iter().copied())
        .collect();
    let (mut bytes, mut all_bytes) = (0, 0);
    if !named.is_empty() {
        for archive in state.catalog.archives()?.iter() {
            all_bytes += archive.row.bytes;
            if named.contains(&archive.row.blake3) {
                bytes += archive.row.bytes;
            }
        }
    }
    Ok(Unsigned {
        count: unsigned.count(),
        bytes,
        all_bytes,
    })
}

/// Returns the archives of the newest snapshot on the target.
async fn needed_on(
    inspected: &InspectedTarget,
    seen: &TargetInventory,
    rows: &[SnapshotRow],
) -> Option<HashSet<Hash>> {
    let shown: HashSet<_> = seen.manifests.iter().collect();
    match rows.iter().rev().find(|row| shown.contains(&row.name)) {
        Some(row) => needed_by(&inspected.folder, row).await,
        None => Some(HashSet::new()),
    }
}

/// Returns the archives of the newest snapshot of all, from the spool or from a target.
async fn needed_by_newest(
    state: &State,
    inspected_targets: &[InspectedTarget],
    rows: &[SnapshotRow],
) -> Option<HashSet<Hash>> {
    let Some(row) = rows.last() else {
        return Some(HashSet::new());
    };
    if let Some(needed) = needed_in_spool(state, row) {
        return Some(needed);
    }
    for inspected in inspected_targets
        .iter()
        .filter(|inspected| !inspected.write_only)
    {
        let Ok(seen) = &inspected.seen else { continue };
        if !seen.manifests.contains(&row.name) {
            continue;
        }
        if let Some(needed) = needed_by(&inspected.folder, row).await {
            return Some(needed);
        }
    }
    None
}

fn needed_in_spool(state: &State, row: &SnapshotRow) -> Option<HashSet<Hash>> {
    let manifest =
        Manifest::parse_named(&row.name, &state.spool.read(&row.name.key()).ok()?).ok()?;
    let mut needed = HashSet::new();
    for hash in &manifest.pages {
        let bytes = state.spool.read(&ObjectKey::table(hash)).ok()?;
        let page = parse_page(hash, &bytes).ok()?;
        needed.extend(page.rows.iter().map(|archive| archive.blake3));
    }
    Some(needed)
}

async fn needed_by(folder: &HostFolder, row: &SnapshotRow) -> Option<HashSet<Hash>> {
    let manifest = folder.manifest_named(&row.name).await.ok()?;
    // The catalog says which snapshot this is; the target may have another under that name.
    if manifest.core_hash != row.known.core {
        return None;
    }
    let table = folder.table(&manifest).await.ok()?;
    Some(table.rows.values().map(|archive| archive.blake3).collect())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::format::statement::Mark;

    fn mark(vouched: Vouched, archives: &[&str]) -> SeenMark {
        let archives = archives
            .iter()
            .map(|name| Hash::blake3(name.as_bytes()))
            .collect();
        let host = "dalidou".parse().unwrap();
        let mark = Mark::new(host, DateTime::UNIX_EPOCH, archives, Vec::new()).unwrap();
        let (name, _) = mark.encode();
        SeenMark {
            name,
            mark,
            vouched,
        }
    }

    fn set(names: &[&str]) -> HashSet<Hash> {
        names
            .iter()
            .map(|name| Hash::blake3(name.as_bytes()))
            .collect()
    }

    fn verdict(one: &SeenMark, here: Option<&[&str]>, unsigned: (usize, u64)) -> &'static str {
        let (here, anywhere) = (here.map(set), set(&["new", "both"]));
        let judge = Judge {
            here: here.as_ref(),
            anywhere: Some(&anywhere),
            unsigned: Unsigned {
                count: unsigned.0,
                bytes: unsigned.1,
                all_bytes: 100,
            },
        };
        match judge.verdict(one) {
            MarkVerdict::Follow => "follow",
            MarkVerdict::Wait(_) => "wait",
            MarkVerdict::Refuse(_) => "refuse",
        }
    }

    #[test]
    fn a_mark_is_followed_only_if_it_is_vouched_for_and_names_nothing_of_today() {
        let here = Some(&["old", "both"][..]);
        let signed = |archives: &[&str]| mark(Vouched::Signer, archives);
        let unsigned = |archives: &[&str]| mark(Vouched::Nobody, archives);
        let stranger = mark(Vouched::Stranger("x".to_owned()), &["gone"]);
        assert_eq!(verdict(&signed(&["gone"]), here, (0, 0)), "follow");
        assert_eq!(verdict(&signed(&["gone", "new"]), here, (0, 0)), "wait");
        assert_eq!(verdict(&signed(&["gone", "old"]), here, (0, 0)), "refuse");
        assert_eq!(verdict(&signed(&["both"]), here, (0, 0)), "refuse");
        assert_eq!(verdict(&signed(&["gone"]), None, (0, 0)), "wait");
        assert_eq!(verdict(&unsigned(&["gone"]), here, (1, 10)), "follow");
        assert_eq!(verdict(&unsigned(&["gone"]), here, (1, 11)), "refuse");
        assert_eq!(verdict(&unsigned(&["gone"]), here, (17, 0)), "refuse");
        assert_eq!(verdict(&unsigned(&["new"]), here, (1, 0)), "refuse");
        assert_eq!(verdict(&stranger, here, (0, 0)), "refuse");
    }
}
