//! Parses what rsync prints.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::storage::contract::Listed;
use crate::storage::key::is_key;

/// A line such as `-rw-r--r--          1,234 2026/11/25 02:31:00 h/archives/x`.
struct ListingLine<'a> {
    /// The first character: `-` for a file, `d` for a folder.
    kind: u8,
    bytes: u64,
    modified: Option<DateTime<Utc>>,
    name: &'a str,
}

fn entry(line: &str) -> Option<ListingLine<'_>> {
    let kind = *line.as_bytes().first()?;
    let mut rest = line.split_once(' ')?.1.trim_start();
    let mut next = || {
        let (word, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(word)
    };
    let bytes = next()?.replace(',', "").parse().ok()?;
    let time = format!("{} {}", next()?, next()?);
    let modified = NaiveDateTime::parse_from_str(&time, "%Y/%m/%d %H:%M:%S");
    Some(ListingLine {
        kind,
        bytes,
        modified: modified.ok().map(|time| time.and_utc()),
        name: rest,
    })
}

/// Returns the files of a recursive listing of `prefix`; its names are relative to the prefix.
pub(super) fn files(output: &str, prefix: &str) -> Vec<Listed> {
    let object = |line| {
        let entry = entry(line)?;
        let key = format!("{prefix}{}", entry.name);
        (entry.kind == b'-' && is_key(&key)).then_some(Listed {
            key,
            bytes: entry.bytes,
            modified: entry.modified,
        })
    };
    output.lines().filter_map(object).collect()
}

/// Returns the folders of a listing of one level, sorted.
pub(super) fn folders(output: &str) -> Vec<String> {
    let entries = output.lines().filter_map(entry);
    let folders = entries.filter(|entry| entry.kind == b'd' && is_key(entry.name));
    let mut names: Vec<String> = folders.map(|entry| entry.name.to_owned()).collect();
    names.sort();
    names
}

/// Returns the files that were sent, from lines of `--out-format="%i %n"` such as
/// `<f+++++++++ h/archives/x`. Lines of progress may be among them.
pub(super) fn sent(output: &str) -> HashSet<String> {
    let lines = output.split(['\r', '\n']);
    let files = lines.filter(|line| line.starts_with("<f"));
    let names = files.filter_map(|line| line.split_once(' '));
    names.map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
drwxr-xr-x          4,096 2026/11/25 02:31:00 .
drwxr-xr-x           4096 2026/11/25 02:31:00 h
-rw-r--r--             12 2026/11/25 02:31:00 h/x
-rw-------      1,234,567 2026/11/25 02:31:00 h/a+b=c@d~e,f
-rw-r--r--             12 2026/11/25 02:31:00 h/.x.Yz12Ab
-rw-r--r--             12 2026/11/25 02:31:00 h/a name
lrwxrwxrwx             12 2026/11/25 02:31:00 link -> h/x
not a line of a listing
";

    #[test]
    fn a_listing_is_reduced_to_valid_keys() {
        let listed = |key: &str, bytes| Listed {
            key: key.to_owned(),
            bytes,
            modified: "2026-11-25T02:31:00Z".parse().ok(),
        };
        assert_eq!(
            files(OUTPUT, ""),
            [listed("h/x", 12), listed("h/a+b=c@d~e,f", 1_234_567)]
        );
        assert_eq!(
            files("-rw 5 2026/11/25 02:31:00 x", "a/b/"),
            [listed("a/b/x", 5)]
        );
        assert_eq!(folders(OUTPUT), ["h"]);
    }

    #[test]
    fn sent_files_are_distinguished_from_existing_ones() {
        let output = "cd+++++++++ h/\n<f+++++++++ h/x\n<f..t...... h/y\n.f          h/z\n\
                      \r  12 100%  1.1kB/s  0:00:00\r<f+++++++++ h/w\n";
        let names = ["h/x", "h/y", "h/w"].map(str::to_owned);
        assert_eq!(sent(output), HashSet::from(names));
    }
}
