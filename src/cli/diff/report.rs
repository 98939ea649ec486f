//! The differences as text and as JSON.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::super::failure::Failure;
use super::super::output::{self, printable, size};
use super::super::version_lines::put_bytes;
use crate::base::ids::Stamp;
use crate::base::skipped::Skipped;
use crate::browse::difference::{
    ChangeKind, ComparedEntry, Differences, EntryChange, MetadataPart,
};
use crate::browse::row_counts::RowChange;
use crate::browse::versions::VersionKind;

/// One side of a comparison.
#[derive(Debug, Clone)]
pub(super) enum DiffSide {
    /// A snapshot, and its sequence if it is known.
    Snapshot(Stamp, Option<u64>),
    /// A directory.
    Live(PathBuf),
}

/// What `diff` found.
#[derive(Debug)]
pub(super) struct DiffReport {
    pub(super) before: DiffSide,
    pub(super) after: DiffSide,
    pub(super) found: Differences,
    /// `None`: they were not compared.
    pub(super) rows: Option<Vec<RowChange>>,
    /// Bytes of the archives that the second snapshot needs and the first does not. `None`: one of
    /// the sides is no snapshot on a target.
    pub(super) new_stored_bytes: Option<u64>,
    /// What could not be compared.
    pub(super) skipped: Vec<Skipped>,
}

impl DiffSide {
    fn text(&self) -> String {
        match self {
            Self::Snapshot(stamp, Some(sequence)) => format!("{stamp} ({sequence})"),
            Self::Snapshot(stamp, None) => stamp.to_string(),
            Self::Live(path) => printable(path.as_os_str().as_encoded_bytes()),
        }
    }

    fn json(&self) -> Value {
        let (stamp, sequence, dir) = match self {
            Self::Snapshot(stamp, sequence) => (Some(stamp), *sequence, None),
            Self::Live(path) => (None, None, Some(path.to_string_lossy())),
        };
        json!({ "stamp": stamp, "sequence": sequence, "dir": dir })
    }
}

fn letter(kind: ChangeKind) -> char {
    match kind {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Content => 'M',
        ChangeKind::Type => 'T',
        ChangeKind::Metadata => 'm',
    }
}

impl DiffReport {
    pub(super) fn new(before: DiffSide, after: DiffSide, found: Differences) -> Self {
        Self {
            before,
            after,
            found,
            rows: None,
            new_stored_bytes: None,
            skipped: Vec::new(),
        }
    }

    /// Whether anything differs.
    pub(super) fn differs(&self) -> bool {
        let has_rows = self.rows.as_ref().is_some_and(|rows| !rows.is_empty());
        has_rows || !self.found.changes.is_empty()
    }

    /// Prints one line for each entry that differs, and how much does.
    pub(super) fn print(&self) -> Result<(), Failure> {
        for change in &self.found.changes {
            output::print_entry(line(change))?;
        }
        self.print_stat()
    }

    /// Prints the paths.
    pub(super) fn print_names(&self) -> Result<(), Failure> {
        for change in &self.found.changes {
            output::print_entry(printable(change.path()))?;
        }
        Ok(())
    }

    /// Prints how much differs.
    pub(super) fn print_stat(&self) -> Result<(), Failure> {
        let totals = &self.found.totals;
        for row in self.rows.iter().flatten() {
            output::print_line(row_line(row))?;
        }
        output::print_line(format_args!(
            "{} -> {}",
            self.before.text(),
            self.after.text(),
        ))?;
        output::print_line(format_args!(
            "{} added, {} removed, {} modified, {} of another type, {} in metadata only",
            totals.added, totals.removed, totals.content, totals.r#type, totals.metadata,
        ))?;
        let stored = self
            .new_stored_bytes
            .map(|bytes| format!(", {} newly stored", size(bytes)));
        output::print_line(format_args!(
            "{} unchanged; {} -> {}{}",
            totals.unchanged,
            size(totals.bytes_before),
            size(totals.bytes_after),
            stored.unwrap_or_default(),
        ))?;
        Ok(())
    }

    /// Returns the report as JSON.
    pub(super) fn json(&self) -> Value {
        let changes: Vec<Value> = self.found.changes.iter().map(change_json).collect();
        json!({
            "before": self.before.json(),
            "after": self.after.json(),
            "differs": self.differs(),
            "changes": changes,
            "totals": self.found.totals,
            "rows": self.rows,
            "new_stored_bytes": self.new_stored_bytes,
            "skipped": self.skipped,
        })
    }
}

fn change_json(change: &EntryChange) -> Value {
    let kind = |entry: &Option<ComparedEntry>| entry.as_ref().map(|one| one.kind);
    let size = |entry: &Option<ComparedEntry>| {
        let file = entry.as_ref().filter(|one| one.kind == VersionKind::File);
        file.map(|one| one.size)
    };
    let mut members = Map::new();
    put_bytes(&mut members, "path", change.path());
    let rest = [
        ("change", json!(change.kind)),
        ("type_before", json!(kind(&change.before))),
        ("type_after", json!(kind(&change.after))),
        ("size_before", json!(size(&change.before))),
        ("size_after", json!(size(&change.after))),
        ("metadata", json!(change.metadata)),
    ];
    members.extend(rest.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(members)
}

/// Returns `M    6 B ->     8 B  PATH`.
fn line(change: &EntryChange) -> String {
    let text = |entry: &Option<ComparedEntry>| entry.as_ref().map(what).unwrap_or_default();
    let (before, after) = (text(&change.before), text(&change.after));
    let middle = match change.kind {
        ChangeKind::Added | ChangeKind::Removed => format!("{before:>8}    {after:>8}"),
        ChangeKind::Metadata => format!("{:>20}", parts(change)),
        ChangeKind::Content | ChangeKind::Type => format!("{before:>8} -> {after:>8}"),
    };
    format!(
        "{} {middle}  {}",
        letter(change.kind),
        printable(change.path())
    )
}

fn parts(change: &EntryChange) -> String {
    let name = |part: &MetadataPart| match part {
        MetadataPart::Mode => "mode",
        MetadataPart::Owner => "owner",
        MetadataPart::Time => "time",
        MetadataPart::Attributes => "xattrs",
    };
    let names: Vec<&str> = change.metadata.iter().map(name).collect();
    names.join(",")
}

/// Returns the size of a file, or what else it is.
fn what(entry: &ComparedEntry) -> String {
    match entry.kind {
        VersionKind::File | VersionKind::Hardlink => size(entry.size),
        VersionKind::Dir => "dir".to_owned(),
        VersionKind::Symlink => "symlink".to_owned(),
        VersionKind::Fifo => "fifo".to_owned(),
        VersionKind::Chardev | VersionKind::Blockdev => "device".to_owned(),
    }
}

/// Returns `db/app.db: documents 1204 -> 0 (-1204)`.
fn row_line(row: &RowChange) -> String {
    let text = |rows: Option<u64>| rows.map_or_else(|| "none".to_owned(), |rows| rows.to_string());
    let change = match (row.before, row.after) {
        (Some(before), Some(after)) => {
            format!(" ({:+})", i128::from(after) - i128::from(before))
        }
        _ => String::new(),
    };
    format!(
        "{}: {} {} -> {}{change}",
        printable(row.database.as_bytes()),
        printable(row.table.as_bytes()),
        text(row.before),
        text(row.after),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_have_a_sign() {
        let row = |before, after| RowChange {
            database: "db/app.db".to_owned(),
            table: "documents".to_owned(),
            before,
            after,
        };
        for (before, after, text) in [
            (Some(1204), Some(0), "1204 -> 0 (-1204)"),
            (
                Some(0),
                Some(u64::MAX),
                "0 -> 18446744073709551615 (+18446744073709551615)",
            ),
            (None, Some(3), "none -> 3"),
            (Some(3), None, "3 -> none"),
        ] {
            assert_eq!(
                row_line(&row(before, after)),
                format!("db/app.db: documents {text}")
            );
        }
    }
}
