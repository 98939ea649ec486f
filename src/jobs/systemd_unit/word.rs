//! Paths as the settings of systemd take them.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Returns the path as one word of a setting: in quotes and with escapes if it needs them.
pub(super) fn unit_word(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let mut word = String::new();
    let mut is_plain = true;
    for byte in bytes {
        let is_safe = byte.is_ascii_alphanumeric() || b"/._-+,:@=~".contains(byte);
        is_plain &= is_safe;
        match byte {
            // It begins a specifier, such as %n.
            b'%' => word.push_str("%%"),
            b' ' => word.push(' '),
            _ if is_safe => word.push(char::from(*byte)),
            _ => word.push_str(&format!("\\x{byte:02x}")),
        }
    }
    match is_plain {
        true => word,
        false => format!("\"{word}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        for (path, word) in [
            ("/srv/photos", "/srv/photos"),
            ("/srv/my photos", "\"/srv/my photos\""),
            ("/srv/100%", "\"/srv/100%%\""),
            ("/srv/a\"b\\c$d", "\"/srv/a\\x22b\\x5cc\\x24d\""),
            ("/srv/ü\n", "\"/srv/\\xc3\\xbc\\x0a\""),
        ] {
            assert_eq!(unit_word(Path::new(path)), word);
        }
    }
}
