//! Room that a host's folder keeps for a prune of a full disk.
//!
//! A prune writes before it deletes: a mark, tombstones. On a disk that others filled to the last byte it
//! could not, though it is what frees the disk. So a push leaves `<host>/.reserve` in folders (here, by
//! rsync, by sftp), and a prune that finds no room deletes it first. Its name is no key, so no listing
//! shows it, nothing counts it as an object, and `sync` does not copy it.

use std::error::Error;
use std::io;

use bytes::Bytes;

/// Enough for a mark of thousands of archives and the first tombstones; each snapshot that goes then makes
/// room for the next tombstone.
const RESERVE_BYTES: usize = 256 << 10;
const NAME: &str = ".reserve";

/// Returns the key of a host's reserve. [`crate::storage::key::check_key`] refuses it.
pub(crate) fn key(host: &str) -> String {
    format!("{host}/{NAME}")
}

/// Returns the content of a reserve, which no file system makes smaller.
pub(crate) fn content(host: &str) -> Bytes {
    let mut bytes = vec![0; RESERVE_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(b"sealift reserve of ")
        .update(host.as_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// What [`crate::storage::http::error_text`], rsync's and sftp's failures and the system say where there is no room.
const NO_ROOM: [&str; 4] = [
    "the target is full",
    "a disk is full",
    "is its disk full?",
    "No space left on device",
];

/// Whether an error, or what caused it, is that there is no room.
pub fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let says = error.to_string();
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) || NO_ROOM.iter().any(|words| says.contains(words))
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
    fn a_reserve_is_no_object_and_does_not_shrink() {
        assert!(crate::storage::key::check_key(&key("h")).is_err());
        let content = content("h");
        let packed = zstd::encode_all(&content[..], 19).unwrap();
        assert!(packed.len() >= RESERVE_BYTES);
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        assert!(is_full(&io::Error::from_raw_os_error(28)));
        assert!(is_full(&io::Error::from_raw_os_error(122)));
        assert!(!is_full(&io::Error::from_raw_os_error(5)));
    }
}
