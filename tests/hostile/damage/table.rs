//! How each damage to each kind of object ends, under each operation. No cell is a panic, a hang or a silent pass.

use std::fmt;

use Outcome::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    DataArchive,
    IndexArchive,
    Manifest,
    Signature,
    TablePage,
    Catalog,
    SpoolObject,
    SnapshotFile,
    Tombstone,
    Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Flip,
    Truncate,
    Zero,
    Delete,
    Duplicate,
    Swap,
    RollBack,
    Replay,
    Append,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ends normally and its result is right; for this reason.
    Unaffected(&'static str),
    /// It fails (exit code 1), names the object, and changes nothing.
    Refused,
    /// `restore`: restores an older snapshot, complete; with `--at-least` it refuses.
    Older,
    /// `verify`: a look finds it, by name.
    Found,
    /// `verify`: only reading (`--data`) finds it, by name.
    FoundByReading,
    /// `verify`: what the host remembers of the target is not there, and it says so.
    Doubted,
    /// `backup`: publishes what restores, and says what was wrong (exit code 3); the next one is complete.
    Told,
    /// `backup`: fails once or not, as the damage has it; the next run at the latest is complete.
    Converges,
    /// `backup`: complete, with a note of what was put aside.
    Noted,
    /// `backup`: publishes what restores, and reports the damage each time (exit code 3) until the operator repairs it.
    Blocked,
    /// `backup`: does not notice damage that keeps the size, and uses the archive. A restore refuses it by name; `verify --data
    /// --repair` finds it, and the next backup stores it again.
    Heals,
    /// `prune`: forgets nothing; for this reason.
    Kept(&'static str),
}

/// `restore`, `verify`, `backup`, `prune`.
pub type Cells = [Outcome; 4];

pub const PLACES: [Place; 10] = [
    Place::DataArchive,
    Place::IndexArchive,
    Place::Manifest,
    Place::Signature,
    Place::TablePage,
    Place::Catalog,
    Place::SpoolObject,
    Place::SnapshotFile,
    Place::Tombstone,
    Place::Mark,
];

pub const ACTIONS: [Action; 9] = [
    Action::Flip,
    Action::Truncate,
    Action::Zero,
    Action::Delete,
    Action::Duplicate,
    Action::Swap,
    Action::RollBack,
    Action::Replay,
    Action::Append,
];

const HOST: &str = "it is the host's own, and this looks at the target only";
const STRAY: &str = "no reader reads an object that no manifest names";
const DELETES: &str = "archives are deleted by name: their content makes no difference";
const OWN: &str =
    "a backup does not read what it published again, and its own manifest is then the newest";
const OLDER: &str = "it is genuine, and older than the newest";
const INDEX: &str = "the next index is stored again as far as it changed, here in full";
const ASIDE: &str = "the catalog is moved aside with a note, and a new one continues after the target's newest snapshot: everything is stored once more";
const LOG: &str = "SQLite ignores a log that does not match, and reads no further than its pages";
const DONOR: &str = "the other target has its content, and it is copied from there";
const COPY: &str = "a copy of another size or time is made again; one that looks the same is not read again, because its content was stored when it was made";
const ABSENCE: &str = "a tombstone explains an absence: a manifest that is there counts, and pruning needs no tombstone";
const REMEMBERED: &str =
    "the host remembers what it pruned: a tombstone is for other readers, and `verify` checks it";
const NAMED: &str = "its content does not match its name, so it counts as absent";
const MARK: &str = "a mark concerns only packers and pruners";
const MARKED: &str = "an archive is deleted only if no manifest names it, whatever a mark says; without a mark it waits for the next one";
const POLICY: &str = "two of three snapshots are left, and the policy keeps two";

#[rustfmt::skip]
pub const TABLE: &[(Place, Action, Cells)] = &[
    (Place::DataArchive, Action::Flip, [Refused, FoundByReading, Heals, Unaffected(DELETES)]),
    (Place::DataArchive, Action::Truncate, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::DataArchive, Action::Zero, [Refused, FoundByReading, Heals, Unaffected(DELETES)]),
    (Place::DataArchive, Action::Delete, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::DataArchive, Action::Duplicate, [Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY)]),
    (Place::DataArchive, Action::Swap, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::DataArchive, Action::RollBack, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::DataArchive, Action::Replay, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::DataArchive, Action::Append, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Flip, [Refused, FoundByReading, Unaffected(INDEX), Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Truncate, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Zero, [Refused, FoundByReading, Unaffected(INDEX), Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Delete, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Duplicate, [Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY)]),
    (Place::IndexArchive, Action::Swap, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::IndexArchive, Action::RollBack, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Replay, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::IndexArchive, Action::Append, [Refused, Found, Told, Unaffected(DELETES)]),
    (Place::Manifest, Action::Flip, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Manifest, Action::Truncate, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Manifest, Action::Zero, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Manifest, Action::Delete, [Older, Found, Told, Kept(POLICY)]),
    (Place::Manifest, Action::Duplicate, [Refused, Found, Blocked, Refused]),
    (Place::Manifest, Action::Swap, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Manifest, Action::RollBack, [Older, Found, Told, Refused]),
    (Place::Manifest, Action::Replay, [Unaffected(OLDER), Found, Unaffected(OLDER), Refused]),
    (Place::Manifest, Action::Append, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Flip, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Truncate, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Zero, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Delete, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Duplicate, [Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY)]),
    (Place::Signature, Action::Swap, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::RollBack, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Replay, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Signature, Action::Append, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Flip, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Truncate, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Zero, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Delete, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Duplicate, [Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY), Unaffected(STRAY)]),
    (Place::TablePage, Action::Swap, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::RollBack, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Replay, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::TablePage, Action::Append, [Refused, Found, Unaffected(OWN), Refused]),
    (Place::Catalog, Action::Flip, [Unaffected(HOST), Unaffected(HOST), Converges, Unaffected(HOST)]),
    (Place::Catalog, Action::Truncate, [Unaffected(HOST), Unaffected(HOST), Noted, Unaffected(HOST)]),
    (Place::Catalog, Action::Zero, [Unaffected(HOST), Unaffected(HOST), Noted, Unaffected(HOST)]),
    (Place::Catalog, Action::Delete, [Unaffected(HOST), Unaffected(HOST), Unaffected(ASIDE), Unaffected(HOST)]),
    (Place::Catalog, Action::Duplicate, [Unaffected(HOST), Unaffected(HOST), Unaffected(LOG), Unaffected(HOST)]),
    (Place::Catalog, Action::Swap, [Unaffected(HOST), Doubted, Told, Unaffected(HOST)]),
    (Place::Catalog, Action::RollBack, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::Catalog, Action::Replay, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::Catalog, Action::Append, [Unaffected(HOST), Unaffected(HOST), Unaffected(LOG), Unaffected(HOST)]),
    (Place::SpoolObject, Action::Flip, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SpoolObject, Action::Truncate, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SpoolObject, Action::Zero, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SpoolObject, Action::Delete, [Unaffected(HOST), Unaffected(HOST), Unaffected(DONOR), Unaffected(HOST)]),
    (Place::SpoolObject, Action::Duplicate, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SpoolObject, Action::Swap, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SpoolObject, Action::RollBack, [Unaffected(HOST), Unaffected(HOST), Unaffected(DONOR), Unaffected(HOST)]),
    (Place::SpoolObject, Action::Replay, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SpoolObject, Action::Append, [Unaffected(HOST), Unaffected(HOST), Told, Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Flip, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Truncate, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Zero, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Delete, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Duplicate, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Swap, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::RollBack, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Replay, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::SnapshotFile, Action::Append, [Unaffected(HOST), Unaffected(HOST), Unaffected(COPY), Unaffected(HOST)]),
    (Place::Tombstone, Action::Flip, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Tombstone, Action::Truncate, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Tombstone, Action::Zero, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Tombstone, Action::Delete, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Tombstone, Action::Duplicate, [Unaffected(ABSENCE), Unaffected(NAMED), Unaffected(NAMED), Unaffected(NAMED)]),
    (Place::Tombstone, Action::Swap, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Tombstone, Action::RollBack, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Tombstone, Action::Replay, [Unaffected(ABSENCE), Unaffected(NAMED), Unaffected(NAMED), Unaffected(NAMED)]),
    (Place::Tombstone, Action::Append, [Unaffected(ABSENCE), Found, Unaffected(REMEMBERED), Unaffected(ABSENCE)]),
    (Place::Mark, Action::Flip, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Truncate, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Zero, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Delete, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Duplicate, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Swap, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::RollBack, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Replay, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
    (Place::Mark, Action::Append, [Unaffected(MARK), Unaffected(MARK), Unaffected(MARKED), Unaffected(MARKED)]),
];

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DataArchive => "data archive",
            Self::IndexArchive => "index archive",
            Self::Manifest => "manifest",
            Self::Signature => "signature",
            Self::TablePage => "table page",
            Self::Catalog => "catalog",
            Self::SpoolObject => "spool object",
            Self::SnapshotFile => "snapshot file",
            Self::Tombstone => "tombstone",
            Self::Mark => "mark",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flip => "flip",
            Self::Truncate => "truncate",
            Self::Zero => "zero",
            Self::Delete => "delete",
            Self::Duplicate => "duplicate",
            Self::Swap => "swap",
            Self::RollBack => "roll back",
            Self::Replay => "replay",
            Self::Append => "append",
        })
    }
}

/// The table as Markdown, its reasons numbered below.
pub fn render() -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let mut cell = |outcome: Outcome| {
        let mut with = |word: &str, reason: &'static str| {
            let known = reasons.iter().position(|one| *one == reason);
            let number = known.unwrap_or_else(|| {
                reasons.push(reason);
                reasons.len() - 1
            });
            format!("{word} ({})", number + 1)
        };
        match outcome {
            Unaffected(reason) => with("unaffected", reason),
            Kept(reason) => with("keeps all", reason),
            Refused => "refused".to_owned(),
            Older => "older".to_owned(),
            Found => "found".to_owned(),
            FoundByReading => "found by reading".to_owned(),
            Doubted => "doubted".to_owned(),
            Told => "reported".to_owned(),
            Converges => "converges".to_owned(),
            Noted => "noted".to_owned(),
            Blocked => "reported each time".to_owned(),
            Heals => "heals".to_owned(),
        }
    };
    let mut text = "\n| object | damage | restore | verify | backup | prune |\n".to_owned();
    text += "| --- | --- | --- | --- | --- | --- |\n";
    for (place, action, cells) in TABLE {
        let shown = cells.map(&mut cell).join(" | ");
        text += &format!("| {place} | {action} | {shown} |\n");
    }
    text += "\nUnaffected, because:\n\n";
    for (number, reason) in reasons.iter().enumerate() {
        text += &format!("{}. {reason}.\n", number + 1);
    }
    text
}
