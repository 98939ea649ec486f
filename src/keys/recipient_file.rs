//! Reads files that list recipients: one per line; `#` begins a comment line.

use std::io;
use std::path::Path;

use super::private_key_text::private_part;
use crate::base::ownership::{open_regular, read_text};

/// Largest file that is read, in bytes: some ten thousand recipients.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One recipient of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientLine {
    /// Number of the line, from 1.
    pub number: usize,
    /// The line, without surrounding blanks.
    pub text: String,
}

/// Why a file of recipients is refused.
#[derive(Debug)]
pub enum RecipientFileError {
    /// The file cannot be read, is too large or is not text.
    Read(io::Error),
    /// A line, be it a comment, contains a private key.
    PrivateKey {
        /// Number of the line, from 1.
        line: usize,
        /// The kind of key, such as `an age identity`.
        kind: &'static str,
    },
}

/// Returns the lines that are neither empty nor comments. Whether they are recipients is not
/// checked.
pub fn read_recipient_file(path: &Path) -> Result<Vec<RecipientLine>, RecipientFileError> {
    // The check and the result use the same bytes: the file is opened once.
    let text = open_regular(path).and_then(|file| read_text(&file, MAX_FILE_BYTES));
    let text = text.map_err(RecipientFileError::Read)?;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        // `age-keygen` writes the public key as a comment into the identity file, so a comment may
        // be in an identity file, too.
        if let Some(kind) = private_part(line) {
            return Err(RecipientFileError::PrivateKey { line: number, kind });
        }
        if !line.is_empty() && !line.starts_with('#') {
            let text = line.to_owned();
            lines.push(RecipientLine { number, text });
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Vec<RecipientLine>, RecipientFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read_recipient_file(file.path())
    }

    #[test]
    fn comments_and_blank_lines_are_left_out() {
        let lines = read(b"# ours\n\n  age1x \nssh-ed25519 AAAA me\n").unwrap();
        let lines: Vec<(usize, &str)> = lines.iter().map(|l| (l.number, &l.text[..])).collect();
        assert_eq!(lines, [(3, "age1x"), (4, "ssh-ed25519 AAAA me")]);
    }

    #[test]
    fn a_private_key_is_refused_with_its_line() {
        let found = read(b"age1x\n# AGE-SECRET-KEY-1QQQQ\n");
        let Err(RecipientFileError::PrivateKey { line, kind }) = found else {
            panic!("{found:?}");
        };
        assert_eq!((line, kind), (2, "an age identity"));
    }

    #[test]
    fn a_large_or_binary_file_is_not_read() {
        for content in [vec![b'a'; (1 << 20) + 1], vec![0xff; 9]] {
            assert!(matches!(read(&content), Err(RecipientFileError::Read(_))));
        }
    }
}
