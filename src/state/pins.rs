//! The snapshots that the operator pinned, which stay whatever the policy says: their stamps in
//! `<state>/pins`, one per line, each with the operator's note if there is one: `STAMP NOTE`.
//!
//! Pins hold on this machine only: a prune on another machine takes `--keep STAMP`. The file is not
//! part of the catalog, which may be lost. A line that is not a stamp is an error, since no pin
//! must be ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::base::fs;
use crate::base::ids::{InvalidId, Stamp};

/// Why the pins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file cannot be read or written.
    #[error("cannot {what} the pins in {}", path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A line is not a stamp.
    #[error("{} contains a line that is not a stamp; nothing is deleted until that is corrected", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Names the line.
        #[source]
        source: InvalidId,
    },
}

fn file(state: &Path) -> PathBuf {
    state.join("pins")
}

/// Returns the pinned stamps; none if the file does not exist.
pub fn read(state: &Path) -> Result<BTreeSet<Stamp>, PinError> {
    Ok(read_noted(state)?.into_keys().collect())
}

/// Returns the pinned stamps with their notes. `None`: the pin has no note.
pub fn read_noted(state: &Path) -> Result<BTreeMap<Stamp, Option<String>>, PinError> {
    let path = file(state);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => {
            let what = "read";
            return Err(PinError::Io { what, path, source });
        }
        Ok(text) => text,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pins = lines.map(|line| {
        let (stamp, note) = match line.split_once(' ') {
            Some((stamp, note)) => (stamp, note.trim()),
            None => (line, ""),
        };
        Ok((stamp.parse()?, (!note.is_empty()).then(|| note.to_owned())))
    });
    pins.collect::<Result<_, _>>()
        .map_err(|source| PinError::Malformed { path, source })
}

/// Adds a pin. Without a `note`, the one of an earlier pin of the same snapshot stays.
pub fn add(pins: &mut BTreeMap<Stamp, Option<String>>, stamp: Stamp, note: Option<String>) {
    let kept = pins.entry(stamp).or_default();
    if note.is_some() {
        *kept = note;
    }
}

/// Replaces the pins, atomically. A note becomes one line.
pub fn write(state: &Path, pins: &BTreeMap<Stamp, Option<String>>) -> Result<(), PinError> {
    let path = file(state);
    let lines = pins.iter().map(|(stamp, note)| {
        let words: Vec<&str> = note
            .iter()
            .flat_map(|note| note.split_whitespace())
            .collect();
        match words.is_empty() {
            true => format!("{stamp}\n"),
            false => format!("{stamp} {}\n", words.join(" ")),
        }
    });
    let text: String = lines.collect();
    fs::write_atomic(&path, text.as_bytes(), 0o600).map_err(|source| {
        let what = "write";
        PinError::Io { what, path, source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_on_the_line_of_its_pin() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = |text: &str| text.parse::<Stamp>().unwrap();
        let (first, second) = (stamp("20260407T060000Z"), stamp("20260408T060000Z"));
        std::fs::write(dir.path().join("pins"), format!("{first}\n")).unwrap();
        let mut pins = read_noted(dir.path()).unwrap();
        assert_eq!(pins, BTreeMap::from([(first, None)]));
        pins.insert(second, Some("before the move\n to  Berlin ".to_owned()));
        write(dir.path(), &pins).unwrap();
        let read = read_noted(dir.path()).unwrap();
        assert_eq!(read[&first], None);
        assert_eq!(read[&second].as_deref(), Some("before the move to Berlin"));
        assert_eq!(
            super::read(dir.path()).unwrap(),
            BTreeSet::from([first, second])
        );
        std::fs::write(dir.path().join("pins"), "yesterday it was well\n").unwrap();
        assert!(read_noted(dir.path()).is_err());
    }
}
