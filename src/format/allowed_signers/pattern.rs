//! OpenSSH's pattern lists: `host-*,!host-7`.

/// Longest pattern of a list, in bytes; OpenSSH stops at a longer one.
const MAX_PATTERN_BYTES: usize = 1022;

/// Returns whether `list` accepts `text`: a pattern matches it, and none that begins with `!` does.
pub(super) fn list_matches(list: &[u8], text: &[u8]) -> bool {
    let mut is_match = false;
    for pattern in list.split(|byte| *byte == b',') {
        let (is_denied, pattern) = match pattern.strip_prefix(b"!") {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return false;
        }
        if matches(pattern, text) {
            if is_denied {
                return false;
            }
            is_match = true;
        }
    }
    is_match
}

/// Returns whether `text` matches `pattern`, in which `*` and `?` are wildcards. After a mismatch
/// the last `*` takes one byte more. An earlier one never needs to, and several of them take no
/// longer.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Positions after the last `*` in the pattern, and of the first byte that it does not take yet.
    let mut retry: Option<(usize, usize)> = None;
    while next < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, next));
            }
            Some(byte) if *byte == b'?' || *byte == text[next] => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((behind, from)) = retry else {
                    return false;
                };
                retry = Some((behind, from + 1));
                (at, next) = (behind, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_in_openssh_and_quickly() {
        for (pattern, text, expected) in [
            ("dalidou", "dalidou", true),
            ("dalidou", "dalidou2", false),
            ("Dalidou", "dalidou", false),
            ("d*", "dalidou", true),
            ("*", "", true),
            ("", "x", false),
            ("d?l*u", "dalidou", true),
            ("d??l*u", "dalidou", false),
            ("*ab", "aab", true),
            ("*a*b*", "xaxbx", true),
            ("*a*b", "xbxa", false),
            ("?", "", false),
            (&"*a".repeat(30), &"a".repeat(64), true),
            (&("*a".repeat(30) + "b"), &"a".repeat(64), false),
        ] {
            let is_match = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(is_match, expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_denied_pattern_wins_wherever_it_is() {
        let long = "x".repeat(1023);
        for (list, expected) in [
            ("h", true),
            ("a,h", true),
            ("!h,*", false),
            ("*,!h", false),
            ("*,!g", true),
            ("!g", false),
            ("!!h,*", true),
            ("", false),
            (",,h", true),
            ("!,h", true),
            (&format!("h,{long}"), false),
            (&format!("h,{}", &long[1..]), true),
        ] {
            assert_eq!(list_matches(list.as_bytes(), b"h"), expected, "{list}");
        }
    }
}
