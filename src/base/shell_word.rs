//! Words of a command line that is shown for copying.

use std::borrow::Cow;

/// Returns `text` as a shell reads it back as one word: in quotes if it needs them.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    // A word that begins with "=" is the path of a command in zsh, one with "~" a home directory.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&byte);
    match !text.is_empty() && !text.starts_with('=') && text.bytes().all(is_plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A real shell reads each word back.
    #[test]
    fn a_shell_reads_every_word_back() {
        let mut words: Vec<String> = (1..=255u8)
            .map(|byte| format!("a{}b", char::from(byte)))
            .collect();
        words.extend((1..=127u8).map(|byte| format!("{}b", char::from(byte))));
        let more = [
            "", "'", "''", "~", "~root", "a'b\"c", "$HOME", "`id`", "#", "!x", "a\\", "=ls",
        ];
        words.extend(more.map(str::to_owned));
        let line: Vec<Cow<'_, str>> = words.iter().map(|word| shell_word(word)).collect();
        let script = format!("printf '%s\\0' {}", line.join(" "));
        let read = Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(read.stdout).unwrap();
        let read: Vec<&str> = read.trim_end_matches('\0').split('\0').collect();
        assert_eq!(read, words);
        assert_eq!(shell_word("s3://b/c@d"), "s3://b/c@d");
    }
}
