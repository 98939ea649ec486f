//! Several archives as one tar.
//!
//! Each tar stream ends with two zero blocks; a reader of the joined stream must meet them once, at
//! the end. So the last two blocks of each are held back and looked at before they are dropped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::open::{Identities, OpenArchiveError, open_archive};
use crate::base::ids::{Hash, ObjectKey};

const TRAILER_BYTES: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConcatError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged: its name promises BLAKE3 {promised}, it has {found}", path.display())]
    NotItsName {
        path: PathBuf,
        promised: Hash,
        found: Hash,
    },
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: OpenArchiveError,
    },
    #[error("{} does not end as a tar does", .0.display())]
    NoTrailer(PathBuf),
    #[error("cannot write the tar")]
    Write(#[source] io::Error),
}

/// Opens `archives` in order and writes them to `out` as one tar. An archive whose file is named
/// like one is compared with its name before a byte of it is opened.
pub fn concat_tars(
    archives: &[PathBuf],
    identities: &Identities,
    out: &mut dyn Write,
) -> Result<(), ConcatError> {
    for path in archives {
        check_name(path)?;
        append(path, identities, out)?;
    }
    out.write_all(&[0; TRAILER_BYTES])
        .and_then(|()| out.flush())
        .map_err(ConcatError::Write)
}

fn check_name(path: &Path) -> Result<(), ConcatError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(promised) = name.and_then(ObjectKey::archive_file_hash) else {
        return Ok(());
    };
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| hasher.update_reader(file).map(|_| ()))
        .map_err(|source| ConcatError::Read {
            path: path.to_path_buf(),
            source,
        })?;
    let found = Hash(*hasher.finalize().as_bytes());
    match found == promised {
        true => Ok(()),
        false => Err(ConcatError::NotItsName {
            path: path.to_path_buf(),
            promised,
            found,
        }),
    }
}

/// Writes one archive's tar stream without its two last blocks.
fn append(path: &Path, identities: &Identities, out: &mut dyn Write) -> Result<(), ConcatError> {
    let failed = |source: OpenArchiveError| ConcatError::Open {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(|source| ConcatError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let mut tar = open_archive(file, identities).map_err(failed)?;
    let mut held = Vec::with_capacity(TRAILER_BYTES + (256 << 10));
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(OpenArchiveError::reading(error))),
        };
        held.extend_from_slice(&buffer[..count]);
        if let Some(ready) = held.len().checked_sub(TRAILER_BYTES) {
            out.write_all(&held[..ready]).map_err(ConcatError::Write)?;
            held.drain(..ready);
        }
    }
    match held.len() == TRAILER_BYTES && held.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(ConcatError::NoTrailer(path.to_path_buf())),
    }
}
