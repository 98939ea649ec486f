//! Notes about exclude patterns that most likely do not do what their author meant.
//!
//! git accepts such patterns silently, and so does the walk. But a pattern that can match nothing
//! leaves out nothing, which the author would not notice.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use super::exclude::{Excludes, Pattern, without_trailing_spaces};
use crate::base::openat::Dir;

/// Returns a note for each of `lines` that can match nothing in the tree `root`, or something else
/// than it seems to.
pub(crate) fn remarks(lines: &[String], root: &Dir) -> Vec<String> {
    let noted = lines.iter().enumerate().filter_map(|(at, line)| {
        let why = remark(line, &lines[..at], root)?;
        Some(format!("{}: exclude {line:?} {why}", root.path().display()))
    });
    noted.collect()
}

/// Returns what is odd about `line`, which follows the lines `before`.
fn remark(line: &str, before: &[String], root: &Dir) -> Option<String> {
    if line.starts_with('#') {
        return Some(format!(
            "is read as a comment, so it leaves out nothing; to mean a name, write '\\{line}'"
        ));
    }
    let trimmed = without_trailing_spaces(line.as_bytes());
    let body = String::from_utf8_lossy(trimmed);
    let body = body.strip_prefix('!').unwrap_or(&body);
    let pattern = match Pattern::parse(line).ok()? {
        Some(pattern) if !body.trim_matches('/').is_empty() => pattern,
        _ => return Some("is empty, so it leaves out nothing".to_owned()),
    };
    if pattern.is_malformed() {
        return Some(
            "can match nothing: it has a [ without its ], an unknown class, or a \\ at its end"
                .to_owned(),
        );
    }
    if let Some(why) = out_of_place(body, &pattern, root) {
        return Some(why);
    }
    if pattern.is_negated && is_lost(body, before) {
        return Some(
            "takes back nothing: an earlier pattern leaves out a directory above it, which is not entered"
                .to_owned(),
        );
    }
    if trimmed.len() < line.trim_end_matches('\r').len() {
        return Some(
            "ends with spaces, which are no part of the pattern; write '\\ ' to mean one"
                .to_owned(),
        );
    }
    let ends_blank = body.chars().last().is_some_and(char::is_whitespace);
    (ends_blank && !line.ends_with(['\r', ' '])).then(|| {
        "ends with a blank that is part of the pattern: only names with that blank match".to_owned()
    })
}

/// Returns why a pattern with a `/` can match no path in the tree; `None` if it can.
fn out_of_place(body: &str, pattern: &Pattern, root: &Dir) -> Option<String> {
    let inner = body.trim_end_matches('/');
    let inner = inner.strip_prefix('/').unwrap_or(inner);
    let parts: Vec<&str> = inner.split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Some(
            "can match nothing: no path in the tree has an empty component, . or ..".to_owned(),
        );
    }
    if !pattern.is_anchored {
        return None;
    }
    let first = parts.first()?;
    if *first == "~" {
        return Some("is no path below a home directory: ~ is a name like any other".to_owned());
    }
    if first.contains(['*', '?', '[', '\\']) || has_entry(root, first) {
        return None;
    }
    let relative = |rest: &Path| match rest.as_os_str().is_empty() {
        true => String::new(),
        false => format!("; write \"/{}\"", rest.display()),
    };
    let absolute = Path::new("/").join(inner);
    if let Ok(rest) = absolute.strip_prefix(root.path())
        && body.starts_with('/')
    {
        let relative = relative(rest);
        return Some(format!(
            "can match nothing: patterns are relative to the tree{relative}"
        ));
    }
    let own_name = root.path().components().next_back();
    if own_name == Some(Component::Normal(OsStr::new(first))) {
        let relative = relative(
            Path::new(inner)
                .strip_prefix(first)
                .unwrap_or(Path::new("")),
        );
        return Some(format!(
            "matches nothing: it is relative to the tree, which has no {first} in it{relative}"
        ));
    }
    let is_path_of_host = body.starts_with('/') && parts.len() > 1;
    if is_path_of_host && Dir::open(Path::new("/")).is_ok_and(|top| has_entry(&top, first)) {
        return Some(format!(
            "matches nothing: it is relative to the tree, which has no {first} in it"
        ));
    }
    None
}

fn has_entry(dir: &Dir, name: &str) -> bool {
    // An entry whose metadata cannot be read counts as present.
    !matches!(dir.try_meta(OsStr::from_bytes(name.as_bytes())), Ok(None))
}

/// Returns whether the lines `before` leave out a directory above the path `body`, as far as that
/// is free of wildcards.
fn is_lost(body: &str, before: &[String]) -> bool {
    let Ok(excludes) = Excludes::compile(before.iter().map(String::as_str)) else {
        return false;
    };
    let path = body.trim_matches('/');
    let plain = path.find(['*', '?', '[', '\\']).unwrap_or(path.len());
    let ends = path.match_indices('/').map(|(at, _)| at);
    let mut above = ends.take_while(|at| *at < plain);
    above.any(|at| excludes.is_excluded(&path.as_bytes()[..at], true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(root: &Dir, lines: &[&str]) -> Vec<String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        remarks(&lines, root)
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        std::fs::create_dir_all(path.join("cache")).unwrap();
        let root = Dir::open(&path).unwrap();
        let absolute = path.join("cache").to_string_lossy().into_owned();
        for (line, expected) in [
            ("#recycle", "comment"),
            ("  ", "is empty"),
            ("", "is empty"),
            ("/", "is empty"),
            ("!", "is empty"),
            ("[a", "can match nothing"),
            ("a\\", "can match nothing"),
            ("./cache", "no path in the tree"),
            ("cache//x", "no path in the tree"),
            ("..", "no path in the tree"),
            ("~/cache", "home directory"),
            (absolute.as_str(), "write \"/cache\""),
            ("data/cache", "write \"/cache\""),
            ("/usr/share", "relative to the tree"),
            ("cache ", "ends with spaces"),
            ("cache\t", "ends with a blank"),
        ] {
            let notes = notes(&root, &[line]);
            assert_eq!(notes.len(), 1, "{line:?}: {notes:?}");
            assert!(notes[0].contains(expected), "{line:?}: {notes:?}");
        }
        let lost = notes(&root, &["cache/", "!cache/keep"]);
        assert!(lost.len() == 1 && lost[0].contains("takes back nothing"));
    }

    #[test]
    fn a_pattern_that_may_match_is_not_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        std::fs::create_dir_all(path.join("cache")).unwrap();
        let root = Dir::open(&path).unwrap();
        let sound = [
            "*.log",
            "!keep.log",
            "cache",
            "/cache/",
            "cache/x",
            "**/tmp",
            "later/cache",
            "/later",
            "a\\ ",
            "\\#x",
            "data",
            "data/",
            "{a,b}",
            "x/**",
        ];
        assert_eq!(notes(&root, &sound), [""; 0]);
        std::fs::create_dir(path.join("data")).unwrap();
        assert_eq!(notes(&root, &["data/cache"]), [""; 0]);
    }
}
