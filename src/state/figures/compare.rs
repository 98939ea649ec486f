//! The pure comparison: which figures of a source fell so far that somebody must look.
//!
//! More than half is a loss; less is everyday life. Small sources change by more than that from day to day, so
//! each measure has a floor: below it only a fall to nothing counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Database, Figures};

/// Of fewer files, rows or bytes half may go without an alarm.
pub(crate) const FEWEST_FILES: u64 = 10;
pub(crate) const FEWEST_ROWS: u64 = 100;
pub(crate) const FEWEST_BYTES: u64 = 64 << 10;
/// Of fewer files or bytes it is no alarm that they turned into noise.
const FEWEST_TURNED_FILES: u64 = 10;
const FEWEST_TURNED_BYTES: u64 = 256 << 10;

/// What fell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// All things that are no directory.
    Files,
    /// Of files whose rows are not counted: a database may become smaller with all its rows.
    Bytes,
    Rows {
        database: String,
        table: String,
    },
    /// Of all tables of a database.
    AllRows {
        database: String,
    },
    /// Of all databases of the source, where one of them is gone.
    SourceRows,
    /// Compressible files that turned into noise: this one rises.
    Noise,
}

/// A measure that fell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrunk {
    pub measure: Measure,
    pub before: u64,
    pub now: u64,
}

/// Returns what of a source shrank, by measure. Both are figures of one source; of another kind of source
/// nothing can be compared.
pub fn shrunk(before: &Figures, now: &Figures) -> Vec<Shrunk> {
    if before.kind != now.kind {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut note = |measure, before, now| {
        found.push(Shrunk {
            measure,
            before,
            now,
        });
    };
    if fell(before.files, now.files, FEWEST_FILES) || emptied(before.files, now.files) {
        note(Measure::Files, before.files, now.files);
    }
    // What is watched by its rows now is not watched by its bytes as well; what nobody counted now, is.
    let has_rows = |path: &str| is_counted(before, path) || is_counted(now, path);
    let old_bytes = bytes_without(before, has_rows);
    let new_bytes = bytes_without(now, |path| is_counted(now, path));
    if fell(old_bytes, new_bytes, FEWEST_BYTES) {
        note(Measure::Bytes, old_bytes, new_bytes);
    } else if emptied(before.bytes, now.bytes) {
        note(Measure::Bytes, before.bytes, now.bytes);
    }
    let mut has_lost_rows = false;
    for (path, database) in &before.databases {
        for one in lost_rows(path, database, now) {
            has_lost_rows = true;
            note(one.measure, one.before, one.now);
        }
    }
    let is_gone = |path: &String| !now.databases.contains_key(path);
    if !has_lost_rows && before.databases.keys().any(is_gone) {
        let (old_rows, new_rows) = (source_rows(before, before), source_rows(now, before));
        if fell(old_rows, new_rows, FEWEST_ROWS) {
            note(Measure::SourceRows, old_rows, new_rows);
        }
    }
    let turned = now.turned;
    let as_a_whole = turned.files.saturating_mul(2) > now.changed.files;
    if turned.files >= FEWEST_TURNED_FILES && turned.bytes >= FEWEST_TURNED_BYTES && as_a_whole {
        note(Measure::Noise, before.noise.files, now.noise.files);
    }
    found
}

impl Shrunk {
    /// Returns the measure's present value if it is still far below what it was; `None`: it is back.
    pub fn still(&self, now: &Figures) -> Option<u64> {
        let value = match &self.measure {
            Measure::Files => now.files,
            Measure::Bytes => bytes_without(now, |path| is_counted(now, path)),
            Measure::Rows { database, table } => match now.databases.get(database) {
                Some(Database { tables: None, .. }) => return Some(self.now),
                Some(Database {
                    tables: Some(tables),
                    ..
                }) => tables.get(table).copied().unwrap_or(0),
                None => 0,
            },
            Measure::AllRows { database } => match now.databases.get(database) {
                Some(Database { tables: None, .. }) => return Some(self.now),
                Some(Database {
                    tables: Some(tables),
                    ..
                }) => all_rows(tables),
                None => 0,
            },
            Measure::SourceRows => {
                if now.databases.values().any(|one| one.tables.is_none()) {
                    return Some(self.now);
                }
                source_rows(now, now)
            }
            Measure::Noise => {
                let added = self.now.saturating_sub(self.before);
                let is_there = now.noise.files > self.before + added / 2;
                return is_there.then_some(self.now.max(now.noise.files));
            }
        };
        (lost_half(self.before, value) || emptied(self.before, value)).then_some(value)
    }
}

fn lost_half(before: u64, now: u64) -> bool {
    now < before.div_ceil(2)
}

fn fell(before: u64, now: u64, fewest: u64) -> bool {
    before >= fewest && lost_half(before, now)
}

fn emptied(before: u64, now: u64) -> bool {
    before > 0 && now == 0
}

fn is_counted(figures: &Figures, path: &str) -> bool {
    let database = figures.databases.get(path);
    database.is_some_and(|database| database.tables.is_some())
}

fn bytes_without(figures: &Figures, is_left_out: impl Fn(&str) -> bool) -> u64 {
    let databases = figures.databases.iter();
    let left_out = databases.filter(|(path, _)| is_left_out(path));
    let left_out: u64 = left_out.map(|(_, database)| database.bytes).sum();
    figures.bytes.saturating_sub(left_out)
}

/// What the database at `path` lost. One that is gone is the source's matter: files come and go.
fn lost_rows(path: &str, database: &Database, now: &Figures) -> Vec<Shrunk> {
    let later = now.databases.get(path).and_then(|one| one.tables.as_ref());
    let (Some(tables), Some(later)) = (&database.tables, later) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (table, rows) in own_tables(tables) {
        let left = later.get(table).copied().unwrap_or(0);
        if fell(rows, left, FEWEST_ROWS) {
            found.push(Shrunk {
                measure: Measure::Rows {
                    database: path.to_owned(),
                    table: table.to_owned(),
                },
                before: rows,
                now: left,
            });
        }
    }
    let (rows, left) = (all_rows(tables), all_rows(later));
    // A source that is one database is watched to its last row; a tree may hold little ones of anybody.
    let is_emptied = now.kind == "sqlite" && emptied(rows, left);
    if found.is_empty() && (fell(rows, left, FEWEST_ROWS) || is_emptied) {
        found.push(Shrunk {
            measure: Measure::AllRows {
                database: path.to_owned(),
            },
            before: rows,
            now: left,
        });
    }
    found
}

fn all_rows(tables: &BTreeMap<String, u64>) -> u64 {
    own_tables(tables).map(|(_, rows)| rows).sum()
}

/// Rows of all databases; of one that was not counted, as many as `before` has.
fn source_rows(figures: &Figures, before: &Figures) -> u64 {
    let rows = figures.databases.iter().map(|(path, database)| {
        let earlier = before.databases.get(path);
        let earlier = earlier.and_then(|one| one.tables.as_ref());
        database.tables.as_ref().or(earlier).map_or(0, all_rows)
    });
    rows.sum()
}

/// The tables that hold what the application put there: not SQLite's own, nor the inner tables of a full-text or
/// spatial index, whose rows come and go with its upkeep.
fn own_tables(tables: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    /// Endings that belong together, and those of them whose rows are the index's own.
    const INDEXES: &[(&[&str], &[&str])] = &[
        (
            &["_data", "_idx", "_config"],
            &["_data", "_idx", "_docsize"],
        ),
        (
            &["_segments", "_segdir"],
            &["_segments", "_segdir", "_stat"],
        ),
        (&["_node", "_rowid", "_parent"], &["_node", "_parent"]),
    ];
    let is_inner = |name: &str| {
        INDEXES.iter().any(|(all, inner)| {
            let stem = inner.iter().find_map(|ending| name.strip_suffix(ending));
            stem.is_some_and(|stem| {
                let has = |ending: &&str| tables.contains_key(&format!("{stem}{ending}"));
                all.iter().all(has)
            })
        })
    };
    let own = tables
        .iter()
        .filter(move |(name, _)| !name.starts_with("sqlite_") && !is_inner(name));
    own.map(|(name, rows)| (name.as_str(), *rows))
}

#[cfg(test)]
mod tests;
