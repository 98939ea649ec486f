use super::marker::{CACHEDIR_SIGNATURE, NOBACKUP, cachedir_tag};
use super::*;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

fn open(root: &Path, filter: &Filter) -> Walk {
    walk(&Dir::open(root).unwrap(), filter).unwrap()
}

fn rels(root: &Path, filter: &Filter) -> Vec<String> {
    open(root, filter)
        .map(|walked| match walked {
            Walked::Found(found) => String::from_utf8_lossy(&found.rel).into_owned(),
            Walked::Skipped(skipped) => format!("skipped {}", skipped.path),
            Walked::Note(note) => format!("note {note}"),
        })
        .collect()
}

fn write(root: &Path, rel: &str, content: &[u8]) {
    let path = root.join(rel);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The walk yields the paths in the order in which sorting all of them would put them.
    #[test]
    fn the_order_is_that_of_raw_path_bytes(
        paths in prop::collection::vec(prop::collection::vec("[a!\\-0\u{e9}]{1,3}", 1..5), 0..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = std::collections::BTreeSet::new();
        for parts in &paths {
            let rel = parts.join("/");
            if fs::create_dir_all(dir.path().join(&rel)).is_ok() {
                for depth in 1..=parts.len() {
                    expected.insert(parts[..depth].join("/").into_bytes());
                }
            }
        }
        let found: Vec<Vec<u8>> = open(dir.path(), &Filter::default()).map(|w| match w {
            Walked::Found(found) => found.rel,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn entries_that_sort_before_the_slash_come_between_a_directory_and_its_content() {
    let dir = tempfile::tempdir().unwrap();
    for rel in ["a/b", "a-b", "a0", "a/b-c"] {
        write(dir.path(), rel, b"");
    }
    let found = rels(dir.path(), &Filter::default());
    assert_eq!(found, ["a", "a-b", "a/b", "a/b-c", "a0"]);
}

#[test]
fn a_walk_does_not_mention_what_its_filter_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let tag = [CACHEDIR_SIGNATURE, b"\n# more"].concat();
    write(dir.path(), "cache/CACHEDIR.TAG", &tag);
    write(dir.path(), "cache/junk", b"");
    write(dir.path(), "fake/CACHEDIR.TAG", b"no signature");
    write(dir.path(), "fake/kept", b"");
    write(dir.path(), "no/.nobackup", b"");
    write(dir.path(), "no/junk/deep", b"");
    write(dir.path(), "x.log", b"");
    write(dir.path(), "keep.log", b"");
    write(dir.path(), "build/out", b"");
    write(dir.path(), "big", &[0; 100]);
    write(dir.path(), "own/state", b"");
    let filter = Filter {
        excludes: vec!["*.log".into(), "!keep.log".into(), "/build/".into()],
        max_file_bytes: Some(99),
        hollow: vec![
            Dir::open(&dir.path().join("own"))
                .and_then(Meta::of_fd)
                .unwrap()
                .id(),
        ],
        ..Filter::default()
    };
    let expected = [
        "cache",
        "cache/CACHEDIR.TAG",
        "fake",
        "fake/CACHEDIR.TAG",
        "fake/kept",
        "keep.log",
        "no",
        "no/.nobackup",
        "own",
    ];
    assert_eq!(rels(dir.path(), &filter), expected);
    assert_eq!(rels(dir.path(), &Filter::everything()).len(), 17);
}

#[test]
fn sockets_are_left_out_and_deep_trees_do_not_overflow() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let deep = vec!["d"; 1500].join("/");
    fs::create_dir_all(dir.path().join(deep)).unwrap();
    assert_eq!(rels(dir.path(), &Filter::default()).len(), 1500);
}

/// Takes the next items of the walk, which must be `expected`.
fn pass(walk: &mut Walk, expected: &[&str]) {
    for rel in expected {
        let walked = walk.next();
        assert!(
            matches!(&walked, Some(Walked::Found(found)) if found.rel == rel.as_bytes()),
            "{rel}: {walked:?}"
        );
    }
}

fn assert_reported(rest: &[Walked], path: &str) {
    assert!(
        matches!(rest, [Walked::Skipped(skipped)]
            if skipped.path == path && skipped.reason.contains("took its place")),
        "{rest:?}"
    );
}

#[test]
fn a_directory_that_is_exchanged_before_its_descent_is_not_entered() {
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "tree/a/mine", b"");
        write(dir.path(), "tree/b", b"");
        write(dir.path(), "other/secret", b"");
        let mut walk = open(&dir.path().join("tree"), &Filter::default());
        pass(&mut walk, &["a"]);
        let a = dir.path().join("tree/a");
        fs::rename(&a, dir.path().join("moved")).unwrap();
        (dir, walk, a)
    };
    let check = |mut walk: Walk| {
        let walked = walk.next();
        assert_reported(&walked.into_iter().collect::<Vec<_>>(), "a");
        pass(&mut walk, &["b"]);
        assert!(walk.next().is_none());
    };
    let (dir, walk, a) = make();
    std::os::unix::fs::symlink(dir.path().join("other"), a).unwrap();
    check(walk);
    let (dir, walk, a) = make();
    fs::rename(dir.path().join("other"), a).unwrap();
    check(walk);
    let (_dir, walk, a) = make();
    fs::write(a, b"a file by now").unwrap();
    check(walk);
    // A directory that vanished was removed on purpose.
    let (_dir, mut walk, _) = make();
    pass(&mut walk, &["b"]);
}

#[test]
fn the_kind_that_stat_reports_counts_and_not_that_of_the_listing() {
    let dir = tempfile::tempdir().unwrap();
    for rel in ["a", "b/x", "c", "c-d", "gone/x"] {
        write(dir.path(), rel, b"");
    }
    let filter = Filter {
        excludes: vec!["gone/".into()],
        ..Filter::default()
    };
    let mut walk = open(dir.path(), &filter);
    pass(&mut walk, &["a"]);
    fs::remove_file(dir.path().join("c")).unwrap();
    write(dir.path(), "c/new", b"");
    fs::remove_dir_all(dir.path().join("b")).unwrap();
    write(dir.path(), "b", b"");
    pass(&mut walk, &["b", "c", "c-d", "c/new"]);
    assert!(walk.next().is_none());
    // The same for a pattern that matches directories only.
    write(dir.path(), "d", b"");
    let filter = Filter {
        excludes: vec!["d/".into()],
        ..Filter::default()
    };
    let mut walk = open(dir.path(), &filter);
    fs::remove_file(dir.path().join("d")).unwrap();
    write(dir.path(), "d/x", b"");
    pass(
        &mut walk,
        &["a", "b", "c", "c-d", "c/new", "gone", "gone/x"],
    );
    assert!(walk.next().is_none());
}

#[test]
fn a_deep_directory_that_is_exchanged_while_it_is_closed_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let deep: Vec<String> = (1..=12).map(|depth| vec!["d"; depth].join("/")).collect();
    let at = deep[9].as_str();
    write(dir.path(), &format!("{}/file", deep[11]), b"");
    write(dir.path(), &format!("{at}/z"), b"");
    let mut walk = open(dir.path(), &Filter::default());
    pass(
        &mut walk,
        &deep.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    fs::rename(dir.path().join(at), dir.path().join("moved")).unwrap();
    write(dir.path(), &format!("{at}/z"), b"another");
    pass(&mut walk, &[&format!("{}/file", deep[11])]);
    assert_reported(&walk.collect::<Vec<_>>(), at);
}

/// A link or a FIFO takes the tag's place; opening it must not wait.
#[test]
fn a_fifo_is_not_a_tag_and_is_not_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    dir.make_node("CACHEDIR.TAG", Kind::Fifo, None).unwrap();
    assert!(cachedir_tag(&dir).is_none());
    dir.remove_file("CACHEDIR.TAG").unwrap();
    write(temp.path(), "elsewhere", CACHEDIR_SIGNATURE);
    dir.symlink(b"elsewhere", "CACHEDIR.TAG").unwrap();
    assert!(cachedir_tag(&dir).is_none());
    assert_eq!(rels(temp.path(), &Filter::default()).len(), 2);
}

#[test]
fn a_bad_pattern_is_an_error() {
    let bad = Filter {
        excludes: vec!["a\nb".into()],
        ..Filter::default()
    };
    assert!(matches!(bad.check(), Err(WalkError::Pattern { .. })));
}

/// Each kind of thing under each marker's name: only a regular file counts, and never in the root.
#[test]
fn a_marker_is_a_regular_file_below_the_root() {
    for name in [".nobackup", "CACHEDIR.TAG"] {
        for kind in [
            "file",
            "directory",
            "link to a file",
            "dangling link",
            "fifo",
        ] {
            for depth in ["", "home/"] {
                let temp = tempfile::tempdir().unwrap();
                write(temp.path(), &format!("{depth}thesis"), b"precious");
                write(temp.path(), "z/tag", CACHEDIR_SIGNATURE);
                let dir = Dir::open(temp.path()).unwrap();
                let marker = format!("{depth}{name}");
                match kind {
                    "file" => write(temp.path(), &marker, CACHEDIR_SIGNATURE),
                    "directory" => write(temp.path(), &format!("{marker}/scratch"), b""),
                    "link to a file" => {
                        let to = temp.path().join("z/tag");
                        dir.symlink(to.as_os_str().as_bytes(), &marker).unwrap();
                    }
                    "dangling link" => dir.symlink(b"nowhere", &marker).unwrap(),
                    _ => dir.make_node(&marker, Kind::Fifo, None).unwrap(),
                }
                let found = rels(temp.path(), &Filter::default());
                let is_taken = found.contains(&format!("{depth}thesis"));
                let marks = kind == "file" && !depth.is_empty();
                assert_eq!(is_taken, !marks, "{name} as {kind} in {depth:?}: {found:?}");
                assert!(found.contains(&marker), "{found:?}");
                let has_note = found.iter().any(|line| line.starts_with("note "));
                assert_eq!(has_note, kind == "file" && depth.is_empty(), "{found:?}");
            }
        }
    }
}

/// An entry that the listing calls a file and `stat` does not is not a marker.
#[test]
fn a_marker_that_is_exchanged_after_the_listing_does_not_count() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join(".nobackup")).unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let mut walk = open(temp.path(), &Filter::default());
    let listed = [(NOBACKUP.to_vec(), Kind::File)];
    assert!(walk.marker(&dir, &listed, false).is_none());
    fs::remove_dir(temp.path().join(".nobackup")).unwrap();
    write(temp.path(), ".nobackup", b"");
    assert!(walk.marker(&dir, &listed, false).is_some());
}

#[test]
fn a_tree_on_a_pseudo_file_system_is_an_error_that_names_it() {
    for path in ["/proc", "/proc/self"] {
        let walked = walk(&Dir::open(Path::new(path)).unwrap(), &Filter::default());
        let error = walked.err().unwrap().to_string();
        assert!(error.contains("is on a proc file system"), "{error}");
    }
}

#[test]
fn a_pattern_that_can_match_nothing_is_noted_once() {
    let temp = tempfile::tempdir().unwrap();
    write(temp.path(), "a/b", b"");
    let filter = Filter {
        excludes: vec!["#recycle".into(), "*.log".into()],
        ..Filter::default()
    };
    let found = rels(temp.path(), &filter);
    assert_eq!(found[1..], ["a", "a/b"]);
    assert!(found[0].contains("#recycle"), "{found:?}");
}
