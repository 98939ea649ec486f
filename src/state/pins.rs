//! Snapshots that are to stay whatever the policy says: stamps in `<state>/pins`, one a line.
//!
//! They are this machine's alone: whoever prunes from elsewhere says `--keep STAMP`. The file is not part
//! of the catalog, which may be lost; a line that is no stamp is an error, for a pin must not be passed over.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::fs;
use crate::base::ids::{InvalidId, Stamp};

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("cannot {what} the pins in {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds a line that is no stamp; nothing is deleted until it is put right", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: InvalidId,
    },
}

fn file(state: &Path) -> PathBuf {
    state.join("pins")
}

/// The stamps that are pinned; without the file none.
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

/// Replaces them.
pub fn write(state: &Path, pins: &BTreeSet<Stamp>) -> Result<(), PinError> {
    let path = file(state);
    let text: String = pins.iter().map(|stamp| format!("{stamp}\n")).collect();
    fs::write_atomic(&path, text.as_bytes(), 0o600).map_err(|source| {
        let what = "write";
        PinError::Io { what, path, source }
    })
}
