//! A file in a host's folder that reserves space for a prune of a full disk.
//!
//! A prune writes a mark and tombstones before it deletes. It could not do so on a disk that is
//! full to the last byte, although it would free space. So a push leaves `<host>/.reserve` in
//! folders (local, or by rsync or sftp), and a prune that finds no space deletes it first. Its name
//! is not a key, so no listing contains it, it does not count as an object, and `sync` does not
//! copy it.

use std::error::Error;
use std::io;

use bytes::Bytes;

/// Enough for a mark of thousands of archives and the first tombstones. Each deleted snapshot then
/// frees space for the next tombstone.
const RESERVE_BYTES: usize = 256 << 10;
const NAME: &str = ".reserve";

/// Returns the key of a host's reserve. [`crate::storage::key::check_key`] refuses it.
pub(crate) fn key(host: &str) -> String {
    format!("{host}/{NAME}")
}

/// Returns the content of a reserve, which no file system can compress.
pub(crate) fn content(host: &str) -> Bytes {
    let mut bytes = vec![0; RESERVE_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(b"sealift reserve of ")
        .update(host.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Texts that report a full disk: those of [`crate::storage::http::error_text`], of rsync's and
/// sftp's failures, and of the system.
const NO_SPACE: [&str; 4] = [
    "the target is full",
    "a disk is full",
    "is its disk full?",
    "No space left on device",
];

/// Whether an error or one of its causes is a full disk or quota.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let says = error.to_string();
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) || NO_SPACE.iter().any(|words| says.contains(words))
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_not_an_object_and_does_not_shrink() {
        assert!(crate::storage::key::check_key(&key("h")).is_err());
        let content = content("h");
        let packed = zstd::encode_all(&content[..], 19).unwrap();
        assert!(packed.len() >= RESERVE_BYTES);
    }

    #[test]
    fn a_full_disk_is_distinguished_from_other_failures() {
        assert!(is_full(&io::Error::from_raw_os_error(28)));
        assert!(is_full(&io::Error::from_raw_os_error(122)));
        assert!(!is_full(&io::Error::from_raw_os_error(5)));
    }
}
