//! Writes `restored.jsonl` into a tree: the record of what it holds.

use std::io::{self, BufWriter};

use super::tree::Tree;
use crate::base::ids::Stamp;
use crate::format::index::EntryList;
use crate::format::restored::{RESTORED, RecordWriter, RestoredFrom, RestoredHeader};

/// The record's permissions: paths may be secret.
const RECORD_MODE: u32 = 0o600;

/// Writes the record of `entries` without those numbered `left_out` (ascending). Nothing is hashed:
/// every file has been compared with its entry. Returns whether it was written: not if the snapshot
/// itself has an entry of that name.
pub(super) fn write(
    tree: &Tree,
    entries: &EntryList,
    left_out: &[usize],
    from: &RestoredFrom,
    stamp: Stamp,
) -> io::Result<bool> {
    if entries.find(RESTORED.as_bytes()).is_some() {
        return Ok(false);
    }
    let absent = left_out.iter().map(|number| entries.path(*number).to_vec());
    let header = RestoredHeader::new(from, absent.collect(), stamp.time());
    let file = tree.create(RESTORED.as_bytes(), RECORD_MODE)?;
    let mut record = RecordWriter::begin(BufWriter::with_capacity(1 << 16, file), &header)?;
    for (number, entry) in entries.iter().enumerate() {
        if left_out.binary_search(&number).is_err() {
            record.entry(entry.to_bare_entry())?;
        }
    }
    record.finish()?;
    Ok(true)
}
