//! Valid keys of objects.
//!
//! A key has only characters that mean the same to every file system, URL and S3 server, in
//! segments that never start with a dot. So no key climbs out of a folder, no key needs escaping,
//! and names with a dot are free for a target's own scratch files. Listings omit names that are not
//! valid keys: they are not ours.

use super::error::{ErrorKind, TargetError};

const MAX_KEY_BYTES: usize = 1024;
const MAX_SEGMENT_BYTES: usize = 255;

/// A string that is not a valid key, cut to 120 characters.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an object's key")]
pub(super) struct InvalidKey(String);

fn is_segment(segment: &str) -> bool {
    let allowed = |byte: u8| {
        let is_mark = matches!(byte, b'.' | b'_' | b'-' | b'+' | b'=' | b'@' | b'~' | b',');
        byte.is_ascii_alphanumeric() || is_mark
    };
    (1..=MAX_SEGMENT_BYTES).contains(&segment.len())
        && !segment.starts_with('.')
        && segment.bytes().all(allowed)
}

/// Whether `key` is a valid key.
pub(super) fn is_key(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES && key.split('/').all(is_segment)
}

/// Whether `name` in `folder`, which is a key or the root, is a key.
pub(super) fn is_key_in(folder: &str, name: &str) -> bool {
    folder.len() + 1 + name.len() <= MAX_KEY_BYTES && is_segment(name)
}

/// Refuses an invalid key.
pub(super) fn check_key(key: &str) -> Result<(), InvalidKey> {
    match is_key(key) {
        true => Ok(()),
        false => Err(InvalidKey(key.chars().take(120).collect())),
    }
}

/// Returns the folder that a listing's prefix names, without its final slash; `""` is the root.
fn check_prefix(prefix: &str) -> Result<&str, InvalidKey> {
    if prefix.is_empty() {
        return Ok(prefix);
    }
    let folder = prefix
        .strip_suffix('/')
        .ok_or_else(|| InvalidKey(prefix.chars().take(120).collect()))?;
    check_key(folder).map(|()| folder)
}

/// Refuses an invalid key in an operation on the target `label`.
pub(super) fn require_key(
    operation: &'static str,
    key: &str,
    label: &str,
) -> Result<(), TargetError> {
    let refused = |e| TargetError::new(operation, key, label, ErrorKind::Permanent, e);
    check_key(key).map_err(refused)
}

/// Returns the folder that the prefix of a listing of the target `label` names.
pub(super) fn require_prefix<'a>(prefix: &'a str, label: &str) -> Result<&'a str, TargetError> {
    let refused = |e| TargetError::new("list", prefix, label, ErrorKind::Permanent, e);
    check_prefix(prefix).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_climb_hide_or_need_escaping() {
        for key in ["a", "h/archives/ab/ab12.tar.zst.age", "h/odd+=@~,_-.x"] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.tmp/b", "a b", "a%2fb", "a\\b",
            "a\0b", "ü", "a?b", "a*",
        ] {
            assert!(!is_key(key), "{key:?}");
        }
        assert!(!is_key(&"x".repeat(256)));
        assert!(!is_key(&"x/".repeat(600)));
        assert_eq!(check_prefix("").unwrap(), "");
        assert_eq!(check_prefix("a/b/").unwrap(), "a/b");
        assert!(check_prefix("a").is_err());
        assert!(check_prefix("/").is_err());
    }
}
