//! Writes several archives as one tar.
//!
//! Each tar stream ends with two zero blocks; the joined stream must have them once, at the end. So
//! the last two blocks of each are held back and checked before they are dropped.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::open::{Identities, OpenArchiveError, open_archive};
use crate::base::ids::{Hash, ObjectKey};

const TRAILER_BYTES: usize = 1024;

/// Why archives could not be written as one tar.
#[derive(Debug, thiserror::Error)]
pub enum ConcatError {
    /// An archive cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The archive's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content of an archive is not the one that its name promises.
    #[error("{} is damaged: its name promises BLAKE3 {promised}, it has {found}", path.display())]
    NotItsName {
        /// The archive's path.
        path: PathBuf,
        /// The BLAKE3 in its name.
        promised: Hash,
        /// The BLAKE3 of its content.
        found: Hash,
    },
    /// An archive cannot be decrypted or decompressed.
    #[error("cannot open {}", path.display())]
    Open {
        /// The archive's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: OpenArchiveError,
    },
    /// The tar stream of an archive lacks its last two zero blocks.
    #[error("{} does not end as a tar does", .0.display())]
    NoTrailer(PathBuf),
    /// The output cannot be written.
    #[error("cannot write the tar")]
    Write(#[source] io::Error),
}

/// Opens `archives` in order and writes them to `out` as one tar. If the file name of an archive
/// contains its hash, the content is compared with it before anything is decrypted.
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

/// Compares an archive with the hash in its file name, if there is one.
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

/// Writes one archive's tar stream without its last two blocks.
fn append(path: &Path, identities: &Identities, out: &mut dyn Write) -> Result<(), ConcatError> {
    let failed = |source: OpenArchiveError| ConcatError::Open {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(|source| ConcatError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let file = BufReader::with_capacity(128 << 10, file);
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
