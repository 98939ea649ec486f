//! The plan of the moves, as the journal holds it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::base::ids::Stamp;
use crate::base::journal::Journal;
use crate::base::openat::{Dir, Meta};

/// The journal's name in the staging directory.
pub(super) const JOURNAL: &str = "journal.jsonl";
const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;
pub(super) const OWNER_WRITES: u32 = 0o200;

/// All moves of one restore; the journal's only record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MovePlan {
    /// When the restore began to put its tree in place.
    pub(super) stamp: Stamp,
    /// The name of the directory, in the destination, that takes the old content. `None`: there is
    /// no old content.
    pub(super) aside: Option<String>,
    pub(super) items: Vec<EntryMove>,
}

/// An entry of the destination that exists before the restore, after it, or both.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryMove {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The name in base64, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) old: Option<EntryState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) new: Option<EntryState>,
}

/// One state of an entry, the old or the new one.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryState {
    /// The permissions of a directory that its owner may not write. The owner gets the permission
    /// during the rename, which changes the directory's `..`. `None`: any other entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<u32>,
}

impl EntryState {
    pub(super) fn of(meta: &Meta) -> Self {
        let closed = meta.is_dir() && meta.permissions() & OWNER_WRITES == 0;
        Self {
            mode: closed.then_some(meta.permissions()),
        }
    }
}

impl EntryMove {
    pub(super) fn new(name: &OsStr, old: Option<EntryState>, new: Option<EntryState>) -> Self {
        let text = name.to_str().map(str::to_owned);
        let name_b64 = text.is_none().then(|| BASE64.encode(name.as_bytes()));
        Self {
            name: text,
            name_b64,
            old,
            new,
        }
    }

    pub(super) fn name(&self) -> io::Result<OsString> {
        let encoded = self.name_b64.as_ref().map(|text| BASE64.decode(text));
        match (&self.name, encoded) {
            (Some(name), None) => Ok(name.into()),
            (None, Some(Ok(name))) => Ok(OsString::from_vec(name)),
            _ => Err(unreadable("an entry without a name")),
        }
    }
}

/// Plans the moves of the entries of both directories, each name once.
pub(super) fn plan_moves(
    to: &Dir,
    tree: &Dir,
    staging: &OsStr,
    moves_aside: bool,
) -> io::Result<Vec<EntryMove>> {
    let device = Meta::of_fd(to)?.dev();
    let mut items: BTreeMap<OsString, (Option<EntryState>, Option<EntryState>)> = BTreeMap::new();
    for entry in tree.entries()? {
        let meta = tree.meta_of_entry(&entry.name)?;
        items.entry(entry.name).or_default().1 = Some(EntryState::of(&meta));
    }
    let stays = |name: &OsStr| name == staging || name == "lost+found";
    for entry in to.entries()? {
        if !moves_aside || stays(&entry.name) {
            continue;
        }
        let meta = to.meta_of_entry(&entry.name)?;
        if meta.dev() != device {
            let what = format!(
                "{} is a mount point, which cannot be moved aside: unmount it first",
                to.path_of(&entry.name).display()
            );
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        items.entry(entry.name).or_default().0 = Some(EntryState::of(&meta));
    }
    let items = items.into_iter();
    Ok(items
        .map(|(name, (old, new))| EntryMove::new(&name, old, new))
        .collect())
}

fn unreadable(what: &str) -> io::Error {
    let what = format!("its journal holds {what}");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the plan from the journal in `staging`. `None`: there is no journal, or no whole record.
pub(super) fn read_plan(staging: &Dir) -> io::Result<Option<MovePlan>> {
    let Some((records, _)) = Journal::<MovePlan>::read(staging, JOURNAL)? else {
        return Ok(None);
    };
    Ok(records.into_iter().next())
}
