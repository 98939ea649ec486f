//! Which paths of a snapshot an operator means: literal paths, and globs such as
//! `photos/**/*.jpg`.
//!
//! A path that exists is meant literally, even if it has a `*`, a `[` or a `\` in its name, and so
//! is a directory that exists at the beginning of a glob. A glob is compared with whole paths from
//! the top of the snapshot, as a shell would: `*` stops at `/`, `**` does not. Whatever is below a
//! chosen path is chosen too. Needs no memory per file.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::glob::Glob;
use super::similar::edit_distance;

/// Similar paths that an error names.
const MOST_NEAR: usize = 3;

/// Paths that were chosen.
#[derive(Debug)]
pub(crate) struct PathChoice {
    /// Everything is meant: no path was named, or the top itself was.
    is_everything: bool,
    /// There can be as many as the snapshot has entries.
    literals: BTreeSet<Vec<u8>>,
    globs: Vec<ChosenGlob>,
    /// Paths that do not exist and are no globs.
    missing: Vec<Vec<u8>>,
}

/// A glob among the chosen paths.
#[derive(Debug)]
struct ChosenGlob {
    text: Vec<u8>,
    glob: Glob,
    has_matched: Cell<bool>,
}

impl PathChoice {
    /// Reads `paths`; `exists` returns whether the snapshot has a path.
    pub(crate) fn new<'a>(
        paths: impl IntoIterator<Item = &'a [u8]>,
        exists: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let mut choice = Self {
            is_everything: false,
            literals: BTreeSet::new(),
            globs: Vec::new(),
            missing: Vec::new(),
        };
        let mut is_empty = true;
        for path in paths.into_iter().map(trim) {
            is_empty = false;
            if path.is_empty() {
                choice.is_everything = true;
            } else if exists(path) {
                choice.literals.insert(path.to_vec());
            } else if let Some(glob) = glob_of(path, &exists) {
                choice.globs.push(ChosenGlob {
                    text: path.to_vec(),
                    glob,
                    has_matched: Cell::new(false),
                });
            } else {
                choice.missing.push(path.to_vec());
            }
        }
        choice.is_everything |= is_empty;
        choice
    }

    /// Whether the whole snapshot is chosen.
    pub(crate) fn is_everything(&self) -> bool {
        self.is_everything
    }

    /// Whether some of the paths are globs.
    pub(crate) fn has_globs(&self) -> bool {
        !self.globs.is_empty()
    }

    /// Returns the chosen literal paths.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &[u8]> {
        self.literals.iter().map(Vec::as_slice)
    }

    /// Returns the first path that does not exist and is no glob.
    pub(crate) fn missing(&self) -> Option<&[u8]> {
        self.missing.first().map(Vec::as_slice)
    }

    /// Returns whether `path`, or a directory above it, is chosen.
    pub(crate) fn takes(&self, path: &[u8]) -> bool {
        let mut is_taken = self.is_everything;
        for at in at_and_above(path) {
            is_taken = is_taken || self.literals.contains(at);
            for one in &self.globs {
                // All are tried, since each must match something.
                if (!is_taken || !one.has_matched.get()) && one.glob.matches(at) {
                    one.has_matched.set(true);
                    is_taken = true;
                }
            }
        }
        is_taken
    }

    /// Returns the first glob that matched none of the paths that [`Self::takes`] was asked about.
    pub(crate) fn unmatched(&self) -> Option<&[u8]> {
        let unmatched = self.globs.iter().find(|one| !one.has_matched.get());
        unmatched.map(|one| one.text.as_slice())
    }

    /// Returns whether `path` is chosen, above or below what is chosen; of a glob its part before
    /// the first wildcard counts.
    pub(crate) fn concerns(&self, path: &[u8]) -> bool {
        let globs = self.globs.iter().map(|one| fixed_part(&one.text));
        let missing = self.missing.iter().map(Vec::as_slice);
        let mut named = self.literals().chain(missing).chain(globs);
        self.is_everything
            || named.any(|one| is_at_or_below(path, one) || is_at_or_below(one, path))
    }
}

/// Returns whether `path` is `dir`, or below it. The empty path is the top.
pub(crate) fn is_at_or_below(path: &[u8], dir: &[u8]) -> bool {
    let rest = path.strip_prefix(dir);
    dir.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Returns up to three of `paths` that `path`, which none of them is, may mean: the same name
/// elsewhere, or a similar name.
pub(crate) fn near_names(
    path: &[u8],
    paths: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Vec<String> {
    let name = |path: &[u8]| {
        let cut = path.iter().rposition(|byte| *byte == b'/');
        String::from_utf8_lossy(&path[cut.map_or(0, |cut| cut + 1)..]).to_lowercase()
    };
    let wanted = name(path);
    let farthest = wanted.chars().count() / 3 + 1;
    // Only the best so far are kept, and among equals those in the same directory come first.
    let mut near: Vec<(usize, bool, Vec<u8>)> = Vec::new();
    for found in paths {
        let found = found.as_ref();
        let distance = edit_distance(&name(found), &wanted, farthest);
        if distance <= farthest {
            let key = (distance, parent(found) != parent(path));
            let at = near.partition_point(|(distance, other, _)| (*distance, *other) <= key);
            near.insert(at, (key.0, key.1, found.to_vec()));
            near.truncate(MOST_NEAR);
        }
    }
    near.iter().map(|(_, _, path)| quoted(path)).collect()
}

/// Returns up to three of `paths` that the glob `text`, which matches none of them, may mean: those
/// that it matches in another directory or in another case, or else what is where it begins.
pub(crate) fn near_globbed(
    text: &[u8],
    paths: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Vec<String> {
    let deeper = Glob::compile(&[b"**/", text].concat());
    let any_case = Glob::compile(&[b"**/", text].concat().to_ascii_lowercase());
    let above = fixed_part(text);
    let mut found: [Vec<String>; 3] = Default::default();
    for path in paths {
        let path = path.as_ref();
        let kind = if deeper.as_ref().is_some_and(|glob| glob.matches(path)) {
            0
        } else if any_case
            .as_ref()
            .is_some_and(|glob| glob.matches(&path.to_ascii_lowercase()))
        {
            1
        } else if parent(path).unwrap_or_default() == above {
            2
        } else {
            continue;
        };
        if found[kind].len() < MOST_NEAR {
            found[kind].push(quoted(path));
        }
    }
    let first = found.into_iter().find(|paths| !paths.is_empty());
    first.unwrap_or_default()
}

fn quoted(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    let cut = path.iter().rposition(|byte| *byte == b'/');
    cut.map(|cut| &path[..cut])
}

fn at_and_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| parent(path))
}

/// Normalizes a path: `./a/b/` and `/a/b` mean `a/b`.
pub(crate) fn trim(path: &[u8]) -> &[u8] {
    let mut path = path;
    loop {
        path = match path {
            [b'.', b'/', rest @ ..] | [b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            b"." => b"",
            _ => return path,
        };
    }
}

fn is_wildcard(byte: &u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// Returns the glob that `path` is. The directories above it that exist are meant literally.
fn glob_of(path: &[u8], exists: impl Fn(&[u8]) -> bool) -> Option<Glob> {
    if !path.iter().any(is_wildcard) {
        return None;
    }
    let is_literal = |dir: &&[u8]| dir.iter().any(is_wildcard) && exists(dir);
    let literal = at_and_above(path).skip(1).find(is_literal);
    let (literal, rest) = path.split_at(literal.map_or(0, <[u8]>::len));
    let escaped = literal.iter().flat_map(|byte| {
        let escape = is_wildcard(byte).then_some(b'\\');
        escape.into_iter().chain([*byte])
    });
    Glob::compile(&escaped.chain(rest.iter().copied()).collect::<Vec<u8>>())
}

/// Returns the directory before the first component of a glob that has a wildcard.
fn fixed_part(text: &[u8]) -> &[u8] {
    let plain = text.iter().position(is_wildcard).unwrap_or(text.len());
    parent(&text[..plain]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 8] = [
        "music",
        "music/a.jpg",
        "photos",
        "photos/2024",
        "photos/2024/a.jpg",
        "photos/2024/b.JPG",
        "photos/[x].jpg",
        "photos/x.jpg",
    ];

    fn chosen(paths: &[&str]) -> Vec<&'static str> {
        chosen_of(&PATHS, paths)
    }

    fn chosen_of(all: &[&'static str], paths: &[&str]) -> Vec<&'static str> {
        let exists = |path: &[u8]| all.iter().any(|one| one.as_bytes() == path);
        let choice = PathChoice::new(paths.iter().map(|path| path.as_bytes()), exists);
        let taken = all.iter().copied();
        taken.filter(|path| choice.takes(path.as_bytes())).collect()
    }

    #[test]
    fn names_with_the_characters_of_a_glob_are_literal_if_they_exist() {
        let all = [
            "a1", "a1/b", "a[1]", "a[1]/b", "a[1]/[c]", "foo\\bar", "x*", "xy",
        ];
        for (path, taken) in [
            ("foo\\bar", &["foo\\bar"][..]),
            ("foo\\\\bar", &["foo\\bar"]),
            ("x*", &["x*"]),
            ("x?", &["x*", "xy"]),
            ("a[1]", &["a[1]", "a[1]/b", "a[1]/[c]"]),
            ("a[1]/*", &["a[1]/b", "a[1]/[c]"]),
            ("a[1]/[bc]", &["a[1]/b"]),
            ("a[12]/*", &["a1/b"]),
        ] {
            assert_eq!(chosen_of(&all, &[path]), taken, "{path}");
        }
    }

    #[test]
    fn globs_are_compared_with_whole_paths() {
        for (paths, taken) in [
            (
                &["photos/*.jpg"][..],
                &["photos/[x].jpg", "photos/x.jpg"][..],
            ),
            (&["photos/**/a.jpg"], &["photos/2024/a.jpg"]),
            (&["**/a.jpg"], &["music/a.jpg", "photos/2024/a.jpg"]),
            (&["*.jpg"], &[]),
            // A directory that matches brings what is below it.
            (&["m*"], &["music", "music/a.jpg"]),
            (
                &["*/20??"],
                &["photos/2024", "photos/2024/a.jpg", "photos/2024/b.JPG"],
            ),
            // What exists is meant literally.
            (&["photos/[x].jpg"], &["photos/[x].jpg"]),
            (&["photos/\\[x\\].jpg"], &["photos/[x].jpg"]),
            (
                &["./music/", "photos/x.*"],
                &["music", "music/a.jpg", "photos/x.jpg"],
            ),
        ] {
            assert_eq!(chosen(paths), taken, "{paths:?}");
        }
        for everything in [&[][..], &["/"], &["."], &["", "music"]] {
            assert_eq!(chosen(everything), PATHS, "{everything:?}");
        }
    }

    #[test]
    fn a_path_or_a_glob_that_finds_nothing_is_named() {
        let paths = ["nothing", "nothing*", "photos/*", "[", "music"];
        let choice = PathChoice::new(paths.iter().map(|path| path.as_bytes()), |path| {
            path == b"music"
        });
        let missing = [b"nothing".to_vec(), b"[".to_vec()];
        assert_eq!(
            (choice.missing(), &choice.missing),
            (Some(&b"nothing"[..]), &missing.to_vec())
        );
        for path in PATHS {
            choice.takes(path.as_bytes());
        }
        assert_eq!(choice.unmatched(), Some(&b"nothing*"[..]));
        // Two globs that match the same paths have both matched.
        let choice = PathChoice::new([&b"m*"[..], b"mu*"], |_| false);
        choice.takes(b"music");
        assert_eq!(choice.unmatched(), None);
    }

    #[test]
    fn near_paths_are_those_that_may_be_meant() {
        let paths = || PATHS.iter().map(|path| path.as_bytes());
        let near = |glob: &str| near_globbed(glob.as_bytes(), paths());
        assert_eq!(near("a.*"), ["\"music/a.jpg\"", "\"photos/2024/a.jpg\""]);
        assert_eq!(near("b.j*"), ["\"photos/2024/b.JPG\""]);
        assert_eq!(
            near("photos/2024/*.png"),
            ["\"photos/2024/a.jpg\"", "\"photos/2024/b.JPG\""]
        );
        assert_eq!(near("*.png"), ["\"music\"", "\"photos\""]);
        assert_eq!(near("none/*.png"), [""; 0]);
        let names = near_names(b"photos/a.jpeg", paths());
        assert_eq!(names.first().map(String::as_str), Some("\"music/a.jpg\""));
    }

    #[test]
    fn what_is_above_or_below_a_choice_concerns_it() {
        let choice = PathChoice::new([&b"photos/20*/x"[..], b"music/a"], |_| false);
        for path in ["photos", "photos/other", "music", "music/a", "music/a/b"] {
            assert!(choice.concerns(path.as_bytes()), "{path}");
        }
        for path in ["music/b", "photo", "other"] {
            assert!(!choice.concerns(path.as_bytes()), "{path}");
        }
        assert!(
            is_at_or_below(b"a/b", b"a")
                && is_at_or_below(b"a", b"")
                && !is_at_or_below(b"ab", b"a")
        );
    }
}
