use super::*;
use proptest::prelude::*;
use std::fs;

fn open(root: &Path, filter: &Filter) -> Walk {
    walk(&Dir::open(root).unwrap(), filter).unwrap()
}

fn rels(root: &Path, filter: &Filter) -> Vec<String> {
    open(root, filter)
        .map(|walked| match walked {
            Walked::Found(found) => String::from_utf8_lossy(&found.rel).into_owned(),
            Walked::Skipped(skipped) => format!("skipped {}", skipped.path),
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
    /// Streaming gives what sorting all paths would.
    #[test]
    fn order_is_that_of_raw_path_bytes(
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
            Walked::Skipped(skipped) => panic!("{skipped:?}"),
        }).collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_directory_is_interrupted_by_its_longer_sisters() {
    let dir = tempfile::tempdir().unwrap();
    for rel in ["a/b", "a-b", "a0", "a/b-c"] {
        write(dir.path(), rel, b"");
    }
    let found = rels(dir.path(), &Filter::default());
    assert_eq!(found, ["a", "a-b", "a/b", "a/b-c", "a0"]);
}

#[test]
fn filters_leave_out_and_do_not_mention() {
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
fn sockets_vanish_and_deep_trees_do_not_overflow() {
    let dir = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let deep = vec!["d"; 1500].join("/");
    fs::create_dir_all(dir.path().join(deep)).unwrap();
    assert_eq!(rels(dir.path(), &Filter::default()).len(), 1500);
}

/// Passes over `expected`, each of which must be found.
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
fn a_directory_that_is_exchanged_between_its_entry_and_its_content_is_not_entered() {
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
    // One that is gone was removed.
    let (_dir, mut walk, _) = make();
    pass(&mut walk, &["b"]);
}

#[test]
fn what_an_entry_is_when_it_is_looked_at_counts_and_not_what_it_was_when_it_was_listed() {
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
    // The same for what a pattern says of directories alone.
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
fn a_deep_directory_that_is_exchanged_while_it_is_not_held_open_is_left() {
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

/// A link or a FIFO in the place of the tag; an open of it must not wait.
#[test]
fn a_tag_that_is_a_fifo_is_no_tag_and_makes_nothing_wait() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    dir.make_node("CACHEDIR.TAG", Kind::Fifo, None).unwrap();
    assert!(!is_cachedir_tag(&dir));
    dir.remove_file("CACHEDIR.TAG").unwrap();
    write(temp.path(), "elsewhere", CACHEDIR_SIGNATURE);
    dir.symlink(b"elsewhere", "CACHEDIR.TAG").unwrap();
    assert!(!is_cachedir_tag(&dir));
    assert_eq!(rels(temp.path(), &Filter::default()).len(), 2);
}

#[test]
fn a_bad_pattern_is_an_error() {
    let bad = Filter {
        excludes: vec!["a{b".into()],
        ..Filter::default()
    };
    assert!(matches!(bad.check(), Err(WalkError::Pattern { .. })));
}
