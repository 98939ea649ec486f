//! Matches one glob as git's `wildmatch` does, in polynomial time.
//!
//! `*` and `?` stop at `/`. `**` crosses it if it is a component of its own; otherwise it means
//! `*`. After a mismatch only the last `*` and the last `**` are extended: the tokens before them
//! matched as early as possible, so extending an earlier one could not help.

/// A compiled glob.
#[derive(Debug, Clone)]
pub(crate) struct Glob(Vec<Token>);

#[derive(Debug, Clone)]
enum Token {
    Byte(u8),
    /// `?`
    Any,
    /// `[…]`
    Set(Box<ByteSet>),
    /// `*`
    Star,
    /// `**` as a component of its own.
    Stars {
        /// A `/` follows, and both together may match nothing.
        with_slash: bool,
    },
}

/// A set of bytes.
type ByteSet = [bool; 256];

impl Glob {
    /// Compiles `pattern`. `None`: it is malformed, so it matches nothing.
    pub(crate) fn compile(pattern: &[u8]) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            tokens.push(match byte {
                b'?' => Token::Any,
                b'\\' => {
                    let escaped = *pattern.get(at)?;
                    at += 1;
                    Token::Byte(escaped)
                }
                b'[' => {
                    let (set, end) = parse_set(pattern, at)?;
                    at = end;
                    Token::Set(Box::new(set))
                }
                b'*' => {
                    let begin = at - 1;
                    while pattern.get(at) == Some(&b'*') {
                        at += 1;
                    }
                    let rest = &pattern[at..];
                    let ends_component = matches!(rest, [] | [b'/', ..] | [b'\\', b'/', ..]);
                    let begins_component = begin == 0 || pattern[begin - 1] == b'/';
                    match at - begin > 1 && begins_component && ends_component {
                        true => Token::Stars {
                            with_slash: rest.first() == Some(&b'/'),
                        },
                        false => Token::Star,
                    }
                }
                byte => Token::Byte(byte),
            });
        }
        Some(Self(tokens))
    }

    /// Returns whether the whole of `text` matches.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let tokens = &self.0;
        let (mut token, mut at) = (0, 0);
        // The token after the last `*`, and the end of the text that the `*` matches.
        let mut star: Option<(usize, usize)> = None;
        // The token after the last `**`, and the position at which it is tried next.
        let mut stars: Option<(usize, usize)> = None;
        loop {
            match (tokens.get(token), text.get(at)) {
                (None, None) => return true,
                (Some(Token::Star), _) => {
                    token += 1;
                    star = Some((token, at));
                    continue;
                }
                (Some(Token::Stars { with_slash }), _) => {
                    star = None;
                    let next = if *with_slash { at } else { at + 1 };
                    stars = Some((token + 1, next));
                    token += if *with_slash { 2 } else { 1 };
                    continue;
                }
                (Some(Token::Byte(wanted)), Some(byte)) if wanted == byte => {
                    (token, at) = (token + 1, at + 1);
                    continue;
                }
                (Some(Token::Any), Some(byte)) if *byte != b'/' => {
                    (token, at) = (token + 1, at + 1);
                    continue;
                }
                (Some(Token::Set(set)), Some(byte)) if set[usize::from(*byte)] => {
                    (token, at) = (token + 1, at + 1);
                    continue;
                }
                _ => {}
            }
            if let Some((after, end)) = star
                && text.get(end).is_some_and(|byte| *byte != b'/')
            {
                star = Some((after, end + 1));
                (token, at) = (after, end + 1);
            } else if let Some((after, next)) = stars
                && next <= text.len()
            {
                star = None;
                stars = Some((after, next + 1));
                (token, at) = (after, next);
            } else {
                return false;
            }
        }
    }
}

/// Parses the set whose `[` is before `at`. Returns it and the position after its `]`; `None`: it
/// is malformed.
fn parse_set(pattern: &[u8], mut at: usize) -> Option<(ByteSet, usize)> {
    let mut set = [false; 256];
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    if negated {
        at += 1;
    }
    let mut previous = None;
    let mut is_first = true;
    loop {
        let byte = *pattern.get(at)?;
        if byte == b']' && !is_first {
            break;
        }
        is_first = false;
        previous = match byte {
            b'\\' => {
                at += 1;
                let escaped = *pattern.get(at)?;
                set[usize::from(escaped)] = true;
                Some(escaped)
            }
            b'-' if previous.is_some() && !matches!(pattern.get(at + 1), None | Some(b']')) => {
                at += 1;
                if pattern[at] == b'\\' {
                    at += 1;
                }
                let last = *pattern.get(at)?;
                for one in previous.unwrap_or(last)..=last {
                    set[usize::from(one)] = true;
                }
                None
            }
            b'[' if pattern.get(at + 1) == Some(&b':') => {
                let name = &pattern[at + 2..];
                let end = name.iter().position(|byte| *byte == b']')?;
                match name[..end].split_last() {
                    Some((b':', name)) => {
                        add_class(&mut set, name)?;
                        at += 2 + end;
                        None
                    }
                    // No `:]` follows: the set contains a `[`.
                    _ => {
                        set[usize::from(b'[')] = true;
                        Some(b'[')
                    }
                }
            }
            byte => {
                set[usize::from(byte)] = true;
                Some(byte)
            }
        };
        at += 1;
    }
    if negated {
        set.iter_mut().for_each(|has| *has = !*has);
    }
    set[usize::from(b'/')] = false;
    Some((set, at + 1))
}

/// Adds the bytes of `[:name:]` as git's own tables have them. `None`: there is no such class.
fn add_class(set: &mut ByteSet, name: &[u8]) -> Option<()> {
    let is_in: fn(&u8) -> bool = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| byte.is_ascii_graphic() || *byte == b' ',
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    };
    for byte in (0..=255u8).filter(is_in) {
        set[usize::from(byte)] = true;
    }
    Some(())
}
