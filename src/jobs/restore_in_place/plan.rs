//! The plan of a restore in place: written once, before anything is changed, and never again. Its
//! hash is in the journal's first record.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::slot::Slot;
use crate::base::ids::{Hash, Stamp};
use crate::base::openat::{Dir, Meta};
use crate::state::restores::{PLAN, RestoreLog};

/// The version of the plan's form.
pub(super) const VERSION: u32 = 1;

/// A plan: all that a later process needs to finish or to undo the restore. Commands and checks are
/// not in it: a later process uses those of the configuration as it is by then.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InPlacePlan {
    pub(super) version: u32,
    /// A ULID.
    pub(crate) id: String,
    pub(crate) made_at: DateTime<Utc>,
    /// The snapshot.
    pub(crate) stamp: Stamp,
    /// The host that made it. Empty: the content does not say.
    pub(crate) host: String,
    /// Where the content comes from, for people.
    pub(crate) origin: String,
    /// The directory of the content.
    pub(crate) content: PathBuf,
    /// The time in the names of the safety copies.
    pub(crate) safety_stamp: Stamp,
    /// At least one.
    pub(crate) items: Vec<PlannedItem>,
    /// The sources that stay as they are, and why.
    pub(crate) left: Vec<LeftSource>,
    /// What the operator must know; the restore is not complete because of it.
    pub(crate) warnings: Vec<super::because::Because>,
    /// The command that stops what uses the data. `None`: none is configured.
    pub(crate) stop: Option<String>,
    /// The command that starts it.
    pub(crate) start: Option<String>,
    /// Names of the checks.
    pub(crate) checks: Vec<String>,
}

/// The kind of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemKind {
    /// A SQLite database, with its log and journal.
    Database,
    /// Another file.
    File,
    /// A directory with all that is in it.
    Tree,
}

/// One source that is put in place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedItem {
    /// The source's name.
    pub(crate) name: String,
    pub(crate) kind: ItemKind,
    /// Its place in the content.
    pub(crate) to: String,
    /// Its real path.
    pub(crate) live: PathBuf,
    /// The name beside `live` of the new content before it is in place.
    pub(super) staged: String,
    /// The name beside `live` of the old content, where its safety copy is a copy, or the file
    /// system cannot exchange two names.
    pub(super) aside: String,
    /// The place of the safety copy.
    pub(crate) safety: PlannedPlace,
    /// The place of the new content after a rollback.
    pub(crate) failed: PlannedPlace,
    /// The place of the new content after a rollback that discards later changes.
    pub(super) discarded: PlannedPlace,
    /// The safety copy is a copy: the operator wants it, or it is on another file system.
    pub(crate) copies: bool,
    /// The owner of the new file. `None`: as recorded.
    pub(super) owner: Option<(u32, u32)>,
    /// The permissions of the new file. `None`: as recorded.
    pub(super) mode: Option<u32>,
    /// Damage of a database in a tree is only reported.
    pub(super) is_lenient: bool,
    /// The source leaves parts of its tree out of snapshots, so they leave the live path with the
    /// old content.
    #[serde(default)]
    pub(crate) leaves_out: bool,
    /// Files of the new content.
    pub(crate) files: u64,
    /// Their sizes together.
    pub(crate) bytes: u64,
    /// The content that it replaces. `None`: nothing is there.
    pub(crate) old: Option<OldContent>,
}

/// The content that an item replaces, as it was when the plan was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldContent {
    pub(super) id: ThingId,
    /// Sizes of its files together.
    pub(crate) bytes: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl OldContent {
    /// Returns device and inode.
    pub(super) fn id(&self) -> (u64, u64) {
        (self.id.dev, self.id.ino)
    }
}

/// A source of the configuration that stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeftSource {
    pub(crate) name: String,
    /// Why.
    pub(crate) why: String,
}

/// A file or directory, as far as a later process can recognize it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThingId {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, i64),
}

impl ThingId {
    pub(super) fn of(meta: &Meta) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// A place in a directory that may not exist yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlannedPlace {
    /// The directory; it may be missing.
    pub(super) base: PathBuf,
    /// The path below it, with `/` between components.
    pub(super) rel: String,
}

impl PlannedPlace {
    pub(crate) fn path(&self) -> PathBuf {
        self.base.join(&self.rel)
    }

    fn split(&self) -> (&str, &str) {
        self.rel.rsplit_once('/').unwrap_or(("", &self.rel))
    }

    /// Returns the place if its directory exists.
    pub(super) fn find(&self) -> io::Result<Option<Slot>> {
        let (above, name) = self.split();
        let base = match Dir::open_trusted(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match base.sub(above) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(Slot {
                dir: other?,
                name: name.into(),
            })),
        }
    }

    /// Returns the place after its directory was made, durably, for this user only.
    pub(super) fn make(&self) -> io::Result<Slot> {
        let (above, name) = self.split();
        let resolved = Dir::resolve(&self.base)?;
        if resolved.other.is_some() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mut dir = resolved.dir;
        // Each part is made in the open directory above it, so that no link leads elsewhere.
        let parts = above.split('/').filter(|part| !part.is_empty());
        let parts = parts.map(OsString::from);
        for part in resolved.missing.into_iter().chain(parts) {
            let below = dir.make_dirs(part, 0o700)?;
            dir.sync()?;
            dir = below;
        }
        Ok(Slot {
            dir,
            name: name.into(),
        })
    }

    /// Removes the directories that were made for it, as far as they are empty.
    pub(super) fn remove_empty(&self) {
        let Ok(base) = Dir::open_trusted(&self.base) else {
            return;
        };
        let (mut above, _) = self.split();
        while !above.is_empty() {
            if base.remove_dir(above).is_err() {
                return;
            }
            above = above.rsplit_once('/').map_or("", |(above, _)| above);
        }
        let _ = base.sync();
    }
}

/// The three names of an item in its own directory.
#[derive(Debug, Clone)]
pub(super) struct ItemSlots {
    pub(super) live: Slot,
    pub(super) staged: Slot,
    pub(super) aside: Slot,
}

impl PlannedItem {
    /// Opens the item's directory.
    pub(super) fn slots(&self) -> io::Result<ItemSlots> {
        let parent = self.live.parent().unwrap_or(Path::new("/"));
        let dir = Dir::open_trusted(parent)?;
        let slot = |name: OsString| Slot {
            dir: dir.clone(),
            name,
        };
        Ok(ItemSlots {
            live: slot(self.live.file_name().unwrap_or_default().to_owned()),
            staged: slot(self.staged.clone().into()),
            aside: slot(self.aside.clone().into()),
        })
    }

    pub(super) fn is_database(&self) -> bool {
        self.kind == ItemKind::Database
    }

    /// Returns the new content's place after a rollback.
    pub(super) fn evidence(&self, discards: bool) -> &PlannedPlace {
        match discards {
            true => &self.discarded,
            false => &self.failed,
        }
    }
}

impl InPlacePlan {
    /// Returns the plan as it is written, and its hash.
    pub(super) fn encode(&self) -> io::Result<(Vec<u8>, Hash)> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let hash = Hash::blake3(&text);
        Ok((text, hash))
    }

    /// Reads the plan of a restore. Fails if it is not the one that the journal names.
    pub(super) fn of(log: &RestoreLog) -> io::Result<Self> {
        let mut text = Vec::new();
        log.dir.open_file(PLAN)?.0.read_to_end(&mut text)?;
        let named = log.records.first();
        let named = named.and_then(|first| first.detail.get("plan")?.as_str()?.parse().ok());
        if named != Some(Hash::blake3(&text)) {
            let what = format!(
                "{} is not the plan that the journal beside it names",
                log.dir.path_of(PLAN).display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let plan: Self = serde_json::from_slice(&text)?;
        match plan.version {
            VERSION => Ok(plan),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the plan has version {other}; this program knows {VERSION}"),
            )),
        }
    }

    /// Returns the directory of the safety copies if it is one of its own, else the first copy.
    pub(crate) fn safety_copy(&self) -> Option<PathBuf> {
        let replaced = self.items.iter().filter(|item| item.old.is_some());
        common_place(replaced.map(|item| &item.safety))
    }

    /// Does the same for the new content after a rollback.
    pub(crate) fn failed_copy(&self, discards: bool) -> Option<PathBuf> {
        common_place(self.items.iter().map(|item| item.evidence(discards)))
    }
}

fn common_place<'a>(mut places: impl Iterator<Item = &'a PlannedPlace>) -> Option<PathBuf> {
    let first = places.next()?;
    Some(match first.rel.split_once('/') {
        Some((dir, _)) => first.base.join(dir),
        None => first.path(),
    })
}
