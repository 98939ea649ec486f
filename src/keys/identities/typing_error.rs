//! Names the typing error in a key that was typed from paper, without repeating a part of the key.

use zeroize::Zeroizing;

/// What no key contains, so that a reader does not confuse letters and digits.
const NOT_IN_KEYS: &str = "1BIO";

/// Returns what is wrong with a line that is not an identity, such as `has a space in it`; `is_key`
/// recognizes identities.
pub(super) fn of_identity(line: &str, is_key: &dyn Fn(&str) -> bool) -> String {
    let has_space = line.chars().any(is_space);
    let joined = without_spaces(line);
    if has_space && is_key(&joined) {
        return "has a space in it; without the space it is a valid key".to_owned();
    }
    if !starts_like_a_key(&joined) {
        return "is not a secret key".to_owned();
    }
    let mut fault = "has a typing error, or is cut short".to_owned();
    if has_space {
        fault += "; it has a space in it, too";
    }
    // The digit 1 ends the words at the start.
    let data = joined.rsplit_once("KEY-1").map_or("", |(_, data)| data);
    let stray = data.to_ascii_uppercase();
    if let Some(place) = stray.find(|c: char| NOT_IN_KEYS.contains(c) || !c.is_ascii_alphanumeric())
    {
        fault += &format!(
            "; character {} after KEY-1 is one that no key has (a key has no B, I, O and no digit 1)",
            stray[..place].chars().count() + 1
        );
    }
    fault
}

/// Whether the lines of `text` make one key if they are joined: it was broken over several lines.
pub(super) fn is_broken_over_lines(text: &str, is_key: &dyn Fn(&str) -> bool) -> bool {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut joined = Zeroizing::new(String::with_capacity(text.len()));
    let mut count = 0;
    for line in lines {
        count += 1;
        line.chars()
            .filter(|c| !is_space(*c))
            .for_each(|c| joined.push(c));
    }
    count > 1 && is_key(&joined)
}

/// Blanks, and characters without a width, which come with text that was copied.
fn is_space(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}'
        )
}

fn without_spaces(line: &str) -> Zeroizing<String> {
    // Allocated at its final size: a string that grows leaves copies behind.
    let mut joined = Zeroizing::new(String::with_capacity(line.len()));
    line.chars()
        .filter(|c| !is_space(*c))
        .for_each(|c| joined.push(c));
    joined
}

fn starts_like_a_key(text: &str) -> bool {
    let start = text.get(..4).unwrap_or_default();
    start.eq_ignore_ascii_case("AGE-")
}

#[cfg(test)]
mod tests {
    use crate::keys::generate::generate;

    fn key() -> String {
        let (text, _) = generate();
        text.lines().last().unwrap().to_owned()
    }

    fn of_identity(line: &str) -> String {
        super::of_identity(line, &super::super::is_age_identity)
    }

    fn is_broken_over_lines(text: &str) -> bool {
        super::is_broken_over_lines(text, &super::super::is_age_identity)
    }

    #[test]
    fn a_space_anywhere_in_a_typed_key_is_named() {
        let key = key();
        for at in [1, 3, 5, 16, 17, 40, 73] {
            for space in [" ", "  ", "\t", "\u{a0}", "\u{200b}"] {
                let typed = format!("{}{space}{}", &key[..at], &key[at..]);
                let fault = of_identity(&typed);
                assert!(
                    fault.starts_with("has a space in it; without"),
                    "{at}: {fault}"
                );
            }
        }
    }

    #[test]
    fn other_typing_errors_are_named_without_the_key() {
        let key = key();
        let wrong = format!("{}O{}", &key[..20], &key[21..]);
        assert!(
            of_identity(&wrong).contains("character 5 after KEY-1"),
            "{}",
            of_identity(&wrong)
        );
        assert!(of_identity(&key[..60]).contains("cut short"));
        let both = format!("{} {}", &key[..30], &key[31..]);
        assert!(
            of_identity(&both).contains("a space in it, too"),
            "{}",
            of_identity(&both)
        );
        assert_eq!(of_identity("hello"), "is not a secret key");
        for fault in [of_identity(&wrong), of_identity(&both)] {
            let parts = key.as_bytes().windows(8).skip(16);
            let mut parts = parts.map(|part| std::str::from_utf8(part).unwrap());
            assert!(!parts.any(|part| fault.contains(part)), "{fault}");
        }
    }

    #[test]
    fn a_key_on_two_lines_is_recognized() {
        let key = key();
        let typed = format!("# from paper\n{}\n{}\n", &key[..37], &key[37..]);
        assert!(is_broken_over_lines(&typed));
        assert!(!is_broken_over_lines(&format!("{key}\n")));
        assert!(!is_broken_over_lines(&format!("{key}\n{key}\n")));
    }
}
