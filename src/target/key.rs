//! Which keys a target takes.
//!
//! The characters that mean the same to every file system, URL and S3 server, in segments that
//! never start with a dot: so no key climbs out of a folder, none needs escaping, and dot names are
//! left for a target's own scratch files. Listings leave out whatever is not such a key; it is not
//! ours.

const MAX_KEY_BYTES: usize = 1024;
const MAX_SEGMENT_BYTES: usize = 255;

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

pub(super) fn is_key(key: &str) -> bool {
    key.len() <= MAX_KEY_BYTES && key.split('/').all(is_segment)
}

/// Whether `name` in `folder`, which is a key or the root, is a key.
pub(super) fn is_key_in(folder: &str, name: &str) -> bool {
    folder.len() + 1 + name.len() <= MAX_KEY_BYTES && is_segment(name)
}

pub(super) fn check_key(key: &str) -> Result<(), InvalidKey> {
    match is_key(key) {
        true => Ok(()),
        false => Err(InvalidKey(key.chars().take(120).collect())),
    }
}

/// The folder that a listing's prefix names, without the slash at its end; `""` is the root.
pub(super) fn check_prefix(prefix: &str) -> Result<&str, InvalidKey> {
    if prefix.is_empty() {
        return Ok(prefix);
    }
    let folder = prefix
        .strip_suffix('/')
        .ok_or_else(|| InvalidKey(prefix.chars().take(120).collect()))?;
    check_key(folder).map(|()| folder)
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
