//! Exclude patterns, read as git reads the lines of a `.gitignore` in the root of the tree.
//!
//! `tests/stages/base/excludes.rs` compares this module with `git check-ignore`. If git's
//! implementation and its manual differ, the implementation counts: `foo**/bar` is read as if `**`
//! were a component, since git compares the part without wildcards first and matches only the rest
//! as a pattern.

use crate::base::glob::Glob;

/// An exclude line that no line of a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// It has a line break.
    #[error("it has a line break: write one pattern per line, as a string of its own")]
    LineBreak,
    /// It has a zero byte.
    #[error("it has a zero byte, which no name has")]
    Zero,
}

/// The compiled patterns, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Excludes(Vec<Pattern>);

/// One compiled line.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// The number of its line, from 0.
    line: usize,
    /// It begins with `!`: paths that match are taken after all.
    pub is_negated: bool,
    /// It ends with `/`: it matches directories only.
    pub dirs_only: bool,
    /// It has a `/` elsewhere: it is compared with the whole path, else with the last component.
    pub is_anchored: bool,
    /// The plain text before the first wildcard.
    prefix: Vec<u8>,
    rest: Rest,
}

/// The part of a pattern after its prefix.
#[derive(Debug, Clone)]
enum Rest {
    /// The prefix is the whole pattern.
    Nothing,
    Glob(Glob),
    /// The pattern is malformed and matches nothing.
    Never,
}

impl Excludes {
    /// Compiles `lines`, in their order.
    pub(crate) fn compile<'a>(
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, (&'a str, BadLine)> {
        let mut patterns = Vec::new();
        for (number, line) in lines.into_iter().enumerate() {
            let pattern = Pattern::parse(line).map_err(|bad| (line, bad))?;
            patterns.extend(pattern.map(|pattern| Pattern {
                line: number,
                ..pattern
            }));
        }
        Ok(Self(patterns))
    }

    /// Returns whether the path `rel`, relative to the root, is left out. The caller has not
    /// entered a directory that is left out, so those above it need no check.
    pub(crate) fn is_excluded(&self, rel: &[u8], is_dir: bool) -> bool {
        self.excluded_by(rel, is_dir).is_some()
    }

    /// Does the same as [`Self::is_excluded`]. Returns the number of the line that decides, from 0;
    /// `None` if the path is taken.
    pub(crate) fn excluded_by(&self, rel: &[u8], is_dir: bool) -> Option<usize> {
        let name_at = rel.iter().rposition(|byte| *byte == b'/');
        let name = &rel[name_at.map_or(0, |at| at + 1)..];
        let mut patterns = self.0.iter().rev();
        let last = patterns.find(|pattern| pattern.matches(rel, name, is_dir));
        last.filter(|pattern| !pattern.is_negated)
            .map(|pattern| pattern.line)
    }
}

impl Pattern {
    /// Parses one line. `None`: it is empty or a comment.
    pub(crate) fn parse(line: &str) -> Result<Option<Self>, BadLine> {
        if line.contains('\n') {
            return Err(BadLine::LineBreak);
        }
        if line.contains('\0') {
            return Err(BadLine::Zero);
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        let text = without_trailing_spaces(line.as_bytes());
        let (is_negated, text) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (dirs_only, text) = match text.strip_suffix(b"/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let is_anchored = text.contains(&b'/');
        let text = match is_anchored {
            true => text.strip_prefix(b"/").unwrap_or(text),
            false => text,
        };
        let is_special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        let plain = text.iter().position(is_special).unwrap_or(text.len());
        // For a name git matches the whole pattern if it has a wildcard.
        let cut = match is_anchored || plain == text.len() {
            true => plain,
            false => 0,
        };
        let (prefix, glob) = text.split_at(cut);
        let rest = match glob.is_empty() {
            // A pattern without a byte matches nothing.
            true if prefix.is_empty() => Rest::Never,
            true => Rest::Nothing,
            false => Glob::compile(glob).map_or(Rest::Never, Rest::Glob),
        };
        Ok(Some(Self {
            line: 0,
            is_negated,
            dirs_only,
            is_anchored,
            prefix: prefix.to_vec(),
            rest,
        }))
    }

    /// Returns whether the pattern can match nothing at all.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self.rest, Rest::Never)
    }

    fn matches(&self, rel: &[u8], name: &[u8], is_dir: bool) -> bool {
        if self.dirs_only && !is_dir {
            return false;
        }
        let text = if self.is_anchored { rel } else { name };
        let Some(rest) = text.strip_prefix(self.prefix.as_slice()) else {
            return false;
        };
        match &self.rest {
            Rest::Nothing => rest.is_empty(),
            Rest::Glob(glob) => glob.matches(rest),
            Rest::Never => false,
        }
    }
}

/// Returns `line` without the spaces at its end, except one after a backslash.
pub(crate) fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < line.len() {
        match line[at] {
            b' ' => {}
            b'\\' => {
                at += 1;
                end = at + 1;
            }
            _ => end = at + 1,
        }
        at += 1;
    }
    // A backslash at the very end ends git's search for spaces.
    &line[..end.min(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(lines: &[&str], rel: &str) -> bool {
        let (rel, is_dir) = match rel.strip_suffix('/') {
            Some(rel) => (rel, true),
            None => (rel, false),
        };
        let excludes = Excludes::compile(lines.iter().copied()).unwrap();
        excludes.is_excluded(rel.as_bytes(), is_dir)
    }

    /// Lines that people write, and lines that public reports say were misread.
    /// `tests/stages/base/excludes.rs` shows that git agrees.
    #[test]
    fn patterns_are_read_as_git_reads_them() {
        for (lines, out, taken) in [
            (
                &["{old}", "*.txt{}"][..],
                &["{old}", "a/{old}/", "x.txt{}"][..],
                &["old", "x.txt"][..],
            ),
            (&["[[:alpha:]]x"], &["ax"], &["1x", "ax1"]),
            (
                &["[[:nothing:]]", "[a", "a\\"],
                &[],
                &["a", ":", "[a", "a\\"],
            ),
            (&["[!a-c]"], &["d", "-"], &["a", "b", "dd"]),
            (&["[]-]"], &["]", "-"], &["a"]),
            (
                &["a\t", "b ", "c\\ ", " "],
                &["a\t", "b", "c "],
                &["a", "b ", "c", " "],
            ),
            (&["#a", "\\#b", "\\!c"], &["#b", "!c"], &["#a", "a"]),
            (&["build/"], &["build/", "x/build/"], &["build", "x/build"]),
            (&["/build"], &["build", "build/"], &["x/build"]),
            (&["a/b"], &["a/b"], &["x/a/b", "b"]),
            (&["**/b"], &["b", "a/b", "a/c/b"], &["bb"]),
            (&["a/**"], &["a/b", "a/b/c"], &["a/", "x/a/b"]),
            (&["a/**/b"], &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]),
            (&["a/*/b"], &["a/x/b"], &["a/b", "a/x/y/b"]),
            (&["a**b"], &["axb", "ab"], &["a"]),
            (&["*.log", "!keep.log"], &["x.log"], &["keep.log"]),
            (&["!keep.log", "*.log"], &["keep.log"], &[]),
            (&["A"], &["A"], &["a"]),
            (&["/", "//", "!", "a//b", ""], &[], &["a", "a/", "a/b"]),
        ] {
            for rel in out {
                assert!(excluded(lines, rel), "{lines:?} leaves {rel:?} out");
            }
            for rel in taken {
                assert!(!excluded(lines, rel), "{lines:?} takes {rel:?}");
            }
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(40) + "b";
        assert!(!excluded(&[&pattern], &"a".repeat(4000)));
        let pattern = "**/a/".repeat(40) + "b";
        assert!(!excluded(&[&pattern], &vec!["a"; 2000].join("/")));
    }

    #[test]
    fn a_line_break_or_a_zero_byte_is_an_error() {
        let bad = |line| Excludes::compile([line]).unwrap_err().1;
        assert_eq!(bad("a\nb"), BadLine::LineBreak);
        assert_eq!(bad("a\0"), BadLine::Zero);
    }
}
