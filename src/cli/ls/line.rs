//! The lines of a list of files, and the same as JSON.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output::{self, printable, size};
use crate::base::ids::Hash;
use crate::format::index::{EntryRef, EntryType};

/// The narrowest column of owners.
pub(super) const OWNER_COLUMN: usize = 15;

/// Which columns are printed, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::cli) struct LsColumns {
    /// Sizes as people read them.
    pub(in crate::cli) human_readable: bool,
    /// With JSON: where each file's content is stored.
    pub(in crate::cli) extents: bool,
    /// The first digits of each file's hash.
    pub(in crate::cli) hashes: bool,
}

/// One file, directory, link or device to print.
pub(super) struct FileLine<'a> {
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) owner: String,
    pub(super) bytes: u64,
    pub(super) mtime: (i64, u32),
    /// BLAKE3 of a file. `None`: it is no file, or this is not known.
    pub(super) blake3: Option<Hash>,
    pub(super) path: &'a [u8],
    pub(super) target: Option<&'a [u8]>,
    pub(super) is_torn: bool,
}

/// Prints entries of an index. `entries` is called twice: first for the width of a column.
pub(in crate::cli) fn print_entries<'a, I: Iterator<Item = EntryRef<'a>>>(
    as_json: bool,
    columns: LsColumns,
    entries: impl Fn() -> I,
) -> Result<(), Failure> {
    if as_json {
        let rows = entries().map(|entry| entry_json(&entry, columns.extents));
        return output::print_json_list(rows);
    }
    let widths = entries().map(|entry| owner_of(&entry).chars().count());
    let width = widths.max().unwrap_or(0).max(OWNER_COLUMN);
    for entry in entries() {
        output::print_entry(FileLine::of(&entry).text(width, columns))?;
    }
    Ok(())
}

fn owner_of(entry: &EntryRef<'_>) -> String {
    let name = |name: Option<&str>, id: u32| name.map_or_else(|| id.to_string(), str::to_owned);
    let (owner, group) = (name(entry.user, entry.uid), name(entry.group, entry.gid));
    format!("{owner}:{group}")
}

impl<'a> FileLine<'a> {
    fn of(entry: &EntryRef<'a>) -> Self {
        Self {
            kind: entry.kind,
            mode: entry.mode,
            owner: owner_of(entry),
            bytes: entry.size,
            mtime: split(entry.mtime_ns),
            blake3: entry.blake3,
            path: entry.path,
            target: entry.target,
            is_torn: entry.torn,
        }
    }

    /// Returns `-rw-r--r-- root:root  4096 2026-04-07 06:00:00Z PATH -> TARGET`. The column of
    /// owners has `width` characters.
    pub(super) fn text(&self, width: usize, columns: LsColumns) -> String {
        let letter = match self.kind {
            EntryType::File => '-',
            EntryType::Dir => 'd',
            EntryType::Symlink => 'l',
            EntryType::Hardlink => 'h',
            EntryType::Fifo => 'p',
            EntryType::Chardev => 'c',
            EntryType::Blockdev => 'b',
        };
        let size = match columns.human_readable {
            true => format!("{:>8}", size(self.bytes)),
            false => format!("{:>12}", self.bytes),
        };
        let time = second_of(self.mtime);
        let hash = match (columns.hashes, &self.blake3) {
            (false, _) => String::new(),
            (true, Some(hash)) => format!("{} ", hash.short()),
            (true, None) => format!("{:<16} ", "-"),
        };
        let mut line = format!(
            "{letter}{} {:<width$} {size} {time} {hash}{}",
            permissions(self.mode),
            self.owner,
            printable(self.path),
        );
        if let Some(target) = self.target {
            line.push_str(" -> ");
            line.push_str(&printable(target));
        }
        if self.is_torn {
            line.push_str("  (changed while it was read)");
        }
        line
    }
}

/// Returns an entry as its line in the index, except that mode and time are texts as elsewhere, and
/// that the extents are there on request only.
fn entry_json(entry: &EntryRef<'_>, extents: bool) -> Result<Value, Failure> {
    let mut entry = entry.to_entry();
    if !extents {
        entry.extents = Vec::new();
    }
    let mut value: Value = serde_json::from_slice(&entry.to_line())?;
    value["mode"] = mode_text(entry.mode);
    value["mtime"] = time_text(split(entry.mtime_ns));
    Ok(value)
}

/// Returns permission bits as JSON: `"0644"`.
pub(super) fn mode_text(mode: u32) -> Value {
    json!(format!("{:04o}", mode & 0o7777))
}

/// Returns a time as JSON: RFC 3339, or `@` and seconds since 1970 if no calendar has it.
pub(super) fn time_text(time: (i64, u32)) -> Value {
    let text = time_of(time).map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    json!(text.unwrap_or_else(|| format!("@{}", time.0)))
}

/// Returns a time as JSON, as [`time_text`] does, of nanoseconds since 1970.
pub(in crate::cli) fn time_of_ns(mtime_ns: i128) -> Value {
    time_text(split(mtime_ns))
}

/// Returns a time to the second: `2026-04-07 06:00:00Z`.
pub(in crate::cli) fn second_of_ns(mtime_ns: i128) -> String {
    second_of(split(mtime_ns))
}

fn second_of(time: (i64, u32)) -> String {
    time_of(time).map_or_else(
        || format!("@{}", time.0),
        |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

fn time_of((seconds, nanoseconds): (i64, u32)) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, nanoseconds)
}

/// Splits nanoseconds since 1970 into whole seconds and the rest.
fn split(mtime_ns: i128) -> (i64, u32) {
    let seconds = i64::try_from(mtime_ns.div_euclid(1_000_000_000)).unwrap_or_default();
    (seconds, mtime_ns.rem_euclid(1_000_000_000) as u32)
}

fn permissions(mode: u32) -> String {
    let mut text = String::new();
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_ls_shows_them() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o1777, "rwxrwxrwt"),
            (0o2640, "rw-r-S---"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn times_and_modes_are_texts_in_json() {
        for (mtime_ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1_775_476_800_500_000_000, "2026-04-06T12:00:00.500Z"),
            (i128::from(i64::MAX) * 1_000_000_000, "@9223372036854775807"),
        ] {
            assert_eq!(time_text(split(mtime_ns)), text);
        }
        assert_eq!(mode_text(0o100_644), "0644");
        assert_eq!(mode_text(0o4755), "4755");
    }

    #[test]
    fn columns_are_aligned() {
        let line = |owner: &str, bytes| FileLine {
            kind: EntryType::File,
            mode: 0o644,
            owner: owner.to_owned(),
            bytes,
            mtime: (0, 0),
            blake3: None,
            path: b"path",
            target: None,
            is_torn: false,
        };
        for human_readable in [false, true] {
            let lines = [
                line("root:root", 7),
                line("a-long-name:its-group", 123_456_789),
            ];
            let columns = LsColumns {
                human_readable,
                ..LsColumns::default()
            };
            let at = lines.map(|line| line.text(21, columns).find("1970").unwrap());
            assert_eq!(at[0], at[1]);
        }
    }
}
