//! The snapshots that the operator pinned, which stay whatever the policy says: their stamps in
//! `<state>/pins`, one per line.
//!
//! Pins hold on this machine only: a prune on another machine takes `--keep STAMP`. The file is not
//! part of the catalog, which may be lost. A line that is not a stamp is an error, since no pin
//! must be ignored.

use std::collections::BTreeSet;
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
    let path = file(state);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => {
            let what = "read";
            return Err(PinError::Io { what, path, source });
        }
        Ok(text) => text,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|source| PinError::Malformed { path, source })
}

/// Replaces the pins, atomically.
pub fn write(state: &Path, pins: &BTreeSet<Stamp>) -> Result<(), PinError> {
    let path = file(state);
    let text: String = pins.iter().map(|stamp| format!("{stamp}\n")).collect();
    fs::write_atomic(&path, text.as_bytes(), 0o600).map_err(|source| {
        let what = "write";
        PinError::Io { what, path, source }
    })
}
