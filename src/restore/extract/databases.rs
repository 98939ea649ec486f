//! Checks that restored databases have the content they had when the snapshot was made.

use std::collections::HashMap;
use std::io;

use super::tree::Tree;
use crate::base::error_chain::with_causes;
use crate::base::sqlite::{self, Budget, Inspection};
use crate::format::index::{DatabaseRecord, EntryList, EntryRef, IndexHeader};

/// The results of the checks.
#[derive(Default)]
pub(super) struct DatabaseChecks {
    /// Paths of the databases that are as they were.
    pub(super) good: Vec<String>,
    /// Paths of the databases that were checked when they were sealed, and have the same hash.
    pub(super) as_sealed: Vec<String>,
    /// `path: what is wrong`.
    pub(super) wrong: Vec<String>,
    /// `path: how`, of databases that were already damaged when the snapshot was made.
    pub(super) known_bad: Vec<String>,
    /// `path: why`, of databases whose check was not completed. Their bytes are proven by hash.
    pub(super) unchecked: Vec<String>,
}

/// Returns the databases among `entries`, by number. A partial restore has only some of them.
pub(super) fn among(entries: &EntryList, header: &IndexHeader) -> HashMap<u32, DatabaseRecord> {
    let mut found = HashMap::new();
    for record in &header.databases {
        // Names that are not UTF-8 may be equal in the records, so the record may be of another
        // file. The content is still proven by hash.
        if record.path.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        if let Some(number) = entries.position(record.path.as_bytes()) {
            found.insert(number as u32, record.clone());
        }
    }
    found
}

impl DatabaseChecks {
    /// Adds the results of another thread.
    pub(super) fn extend(&mut self, more: Self) {
        self.good.extend(more.good);
        self.as_sealed.extend(more.as_sealed);
        self.wrong.extend(more.wrong);
        self.known_bad.extend(more.known_bad);
        self.unchecked.extend(more.unchecked);
    }
}

/// Returns what was wrong with the database at `entry` when it was sealed.
pub(super) fn known_defect(entry: &EntryRef<'_>, record: &DatabaseRecord) -> Option<String> {
    let is_bad = record.integrity != "ok" || entry.torn;
    let (path, integrity) = (&record.path, &record.integrity);
    is_bad.then(|| format!("{path}: damaged in the snapshot: {integrity}"))
}

/// Checks the database at `entry`, one of `entries`, in `tree`.
pub(super) fn check(
    tree: &Tree,
    entries: &EntryList,
    entry: &EntryRef<'_>,
    record: &DatabaseRecord,
    budget: &Budget,
    checked: &mut DatabaseChecks,
) {
    match inspect(tree, entry, budget) {
        Ok(found) => match compare(&found, record) {
            Ok(()) => checked.good.push(record.path.clone()),
            Err(what) => checked.wrong.push(format!("{}: {what}", record.path)),
        },
        // Nothing is known against it, and its bytes are those that were backed up.
        Err(why) => checked.unchecked.push(format!("{}: {why}", record.path)),
    }
    remove_traces(tree, entry, entries);
}

/// Checks the database. An error says why it could not be checked.
fn inspect(tree: &Tree, entry: &EntryRef<'_>, budget: &Budget) -> Result<Inspection, String> {
    let opened = || {
        let file = tree.open_to_read(entry.path)?;
        Ok((tree.place_of(entry.path)?, file))
    };
    let (place, file) = opened().map_err(|error: io::Error| error.to_string())?;
    sqlite::inspect_at(&place, &file, sqlite::Depth::Structure, budget).map_err(|error| {
        let why = error.unchecked().map(str::to_owned);
        why.unwrap_or_else(|| with_causes(&error))
    })
}

fn compare(found: &Inspection, record: &DatabaseRecord) -> Result<(), String> {
    if found.integrity != "ok" {
        return Err(format!("integrity check: {}", found.integrity));
    }
    if found.page_size != record.page_size {
        return Err(format!(
            "its pages have {} bytes instead of {}",
            found.page_size, record.page_size
        ));
    }
    for (table, rows) in &record.tables {
        match found.tables.get(table) {
            Some(now) if now == rows => {}
            Some(now) => return Err(format!("table {table} has {now} rows instead of {rows}")),
            None => return Err(format!("table {table} is missing")),
        }
    }
    match found.tables.len() == record.tables.len() {
        true => Ok(()),
        false => Err("it has tables that it did not have".to_owned()),
    }
}

/// Removes the files that a check of the database may leave beside it, unless the snapshot has
/// them.
fn remove_traces(tree: &Tree, entry: &EntryRef<'_>, entries: &EntryList) {
    for ending in ["-wal", "-shm", "-journal"] {
        let path = [entry.path, ending.as_bytes()].concat();
        if entries.find(&path).is_none() {
            let _ = tree.remove_file(&path);
        }
    }
}
