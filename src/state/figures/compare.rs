//! The pure comparison: finds the figures of a source that fell so far that the operator must know.
//!
//! Only the loss of more than half raises an alarm; smaller losses are ordinary. Small sources
//! often lose more than half, so each measure has a lower limit: below it only a fall to zero
//! counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Database, Figures};

/// The loss of half raises no alarm if there were fewer files than this.
pub(crate) const FEWEST_FILES: u64 = 10;
/// The same for rows.
pub(crate) const FEWEST_ROWS: u64 = 100;
/// The same for bytes.
pub(crate) const FEWEST_BYTES: u64 = 64 << 10;
/// Files that turned into noise raise no alarm if there are fewer than this.
const FEWEST_TURNED_FILES: u64 = 10;
/// The same for their size in bytes.
const FEWEST_TURNED_BYTES: u64 = 256 << 10;

/// A figure that is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Number of all things that are not directories.
    Files,
    /// Size of all files except databases whose rows are counted: such a database may become
    /// smaller and keep all rows.
    Bytes,
    /// Rows of one table.
    Rows {
        /// Path of the database within the snapshot.
        database: String,
        /// Name of the table.
        table: String,
    },
    /// Rows of all tables of a database.
    AllRows {
        /// Path of the database within the snapshot.
        database: String,
    },
    /// Rows of all databases of the source, if one of these vanished.
    SourceRows,
    /// Number of files that look like noise. Unlike the others, this figure rises: compressible
    /// files turned into noise.
    Noise,
}

/// A measure that raises an alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrunk {
    /// The measure.
    pub measure: Measure,
    /// Its value in the snapshot before.
    pub before: u64,
    /// Its present value.
    pub now: u64,
}

/// Returns the measures of a source that raise an alarm. Both figures must be of one source; if its
/// kind has changed, nothing is compared.
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
    // A database whose rows are counted now is compared by its rows, and any other by its bytes.
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
    /// Returns the measure's present value if the alarm still holds; `None`: the source grew back.
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

/// Returns whether more than half is lost.
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

/// Returns the size of a source without the databases that `is_left_out` names.
fn bytes_without(figures: &Figures, is_left_out: impl Fn(&str) -> bool) -> u64 {
    let databases = figures.databases.iter();
    let left_out = databases.filter(|(path, _)| is_left_out(path));
    let left_out: u64 = left_out.map(|(_, database)| database.bytes).sum();
    figures.bytes.saturating_sub(left_out)
}

/// Returns the alarms about the database at `path`. A vanished database is none by itself: files
/// come and go.
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
    // A source that is one database raises an alarm when its last row is lost; a tree may contain
    // small databases of any program.
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

/// Returns the number of rows of all databases; if one was not counted, its rows in `before` are
/// used.
fn source_rows(figures: &Figures, before: &Figures) -> u64 {
    let rows = figures.databases.iter().map(|(path, database)| {
        let earlier = before.databases.get(path);
        let earlier = earlier.and_then(|one| one.tables.as_ref());
        database.tables.as_ref().or(earlier).map_or(0, all_rows)
    });
    rows.sum()
}

/// Returns the tables with the application's own rows: neither SQLite's, nor the inner tables of a
/// full-text or spatial index, whose rows come and go when the index is maintained.
fn own_tables(tables: &BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
    /// The endings of the tables of one index, and those of them that are inner tables.
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
