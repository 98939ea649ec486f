use super::super::finish;
use super::super::tests::{Scene, pass_with};
use super::*;
use crate::base::openat::Dir;
use crate::base::walk::{Filter, Walked, walk};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

mod failure_tests;

/// Waits until a later change leaves other times.
fn settle_clock() {
    std::thread::sleep(super::super::seen::TICK * 2);
}

fn first(job: &Job<'_>) -> Staged {
    pass(job, WalkKind::First, &OnceCell::new()).unwrap()
}

/// Runs a walk that only compares.
fn look(job: &Job<'_>, earlier: &Staged) -> Staged {
    pass(job, WalkKind::FindChanged(earlier), &OnceCell::new()).unwrap()
}

/// Runs a walk that copies changed entries.
fn again(job: &Job<'_>, earlier: &Staged) -> Staged {
    let aside = OnceCell::new();
    let staged = pass(job, WalkKind::CopyChanged(earlier), &aside).unwrap();
    if let Some(aside) = aside.into_inner() {
        aside.remove().unwrap();
    }
    staged
}

fn moved(staged: &Staged) -> Vec<String> {
    let text = |rel: &Vec<u8>| String::from_utf8(rel.clone()).unwrap();
    staged.moved.iter().map(text).collect()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Returns everything that a walk finds: metadata, content, and the names that are one file.
fn describe(dir: &Dir) -> Vec<String> {
    let mut first_names = std::collections::BTreeMap::new();
    let found = walk(dir, &Filter::everything()).unwrap();
    let line = |walked| {
        let Walked::Found(found) = walked else {
            panic!("{walked:?}");
        };
        let meta = found.meta;
        let name = String::from_utf8(found.rel.clone()).unwrap();
        let first = first_names.entry(meta.id()).or_insert(name.clone()).clone();
        let content = match meta.is_file() {
            true => String::from_utf8(fs::read(dir.path_of(found.rel())).unwrap()).unwrap(),
            false => format!("{:?}", dir.read_link(found.rel()).ok()),
        };
        let time = (meta.mtime(), meta.mtime_nsec());
        format!("{name} {:o} {time:?} {first} {content}", meta.mode())
    };
    found.map(line).collect()
}

/// Every kind of change in a tree, one at a time.
#[test]
fn every_kind_of_change_is_seen() {
    type Change = fn(&Path);
    let changes: &[(&str, Option<&str>, Change)] = &[
        ("nothing", None, |_| {}),
        ("content", Some("a"), |d| {
            fs::write(d.join("a"), "other").unwrap()
        }),
        ("appended", Some("d/b"), |d| {
            fs::write(d.join("d/b"), "bb").unwrap()
        }),
        ("new", Some("d/new"), |d| {
            fs::write(d.join("d/new"), "").unwrap()
        }),
        ("new directory", Some("e"), |d| {
            fs::create_dir(d.join("e")).unwrap()
        }),
        ("gone", Some("a"), |d| fs::remove_file(d.join("a")).unwrap()),
        ("renamed", Some("c"), |d| {
            fs::rename(d.join("a"), d.join("c")).unwrap()
        }),
        ("replaced", Some("a"), |d| {
            fs::write(d.join("d/.a"), "a").unwrap();
            fs::rename(d.join("d/.a"), d.join("a")).unwrap();
        }),
        ("mode", Some("a"), |d| chmod(&d.join("a"), 0o600)),
        ("mode of a directory", Some("d"), |d| {
            chmod(&d.join("d"), 0o700)
        }),
        ("link", Some("l"), |d| {
            fs::remove_file(d.join("l")).unwrap();
            symlink("b", d.join("l")).unwrap();
        }),
        ("log", Some("x"), |d| {
            fs::write(d.join("x-wal"), "more").unwrap()
        }),
        ("empty log", None, |d| {
            fs::write(d.join("y-wal"), "").unwrap()
        }),
        ("index of a log", None, |d| {
            fs::write(d.join("x-shm"), "more").unwrap()
        }),
        ("owner of a log", None, |d| chmod(&d.join("x-wal"), 0o600)),
        ("nothing of a database", Some("a-wal"), |d| {
            fs::write(d.join("a-wal"), "").unwrap()
        }),
    ];
    for (what, expected, change) in changes {
        let scene = Scene::new();
        let dir = scene.temp.path().join("tree");
        fs::create_dir(dir.join("d")).unwrap();
        for (name, text) in [
            ("a", "a"),
            ("d/b", "b"),
            ("x", ""),
            ("x-wal", "rows"),
            ("y", ""),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        symlink("a", dir.join("l")).unwrap();
        settle_clock();
        let job = scene.job();
        let mut staged = first(&job);
        let mut names = crate::base::database_names::DatabaseNames::default();
        for name in ["x", "y"] {
            let meta = scene.root.meta(name).unwrap();
            let home = names.home(&scene.root, OsStr::new(name), &meta).unwrap();
            let name = name.as_bytes().to_vec();
            staged.known.insert(name, CopiedDatabase::of(&home));
        }
        change(&dir);
        let moved = moved(&look(&job, &staged));
        match expected {
            Some(rel) => assert!(moved.iter().any(|one| one == rel), "{what}: {moved:?}"),
            None => assert!(moved.is_empty(), "{what}: {moved:?}"),
        }
    }
}

#[test]
fn a_file_that_changed_just_before_the_walk_is_in_doubt() {
    let scene = Scene::new();
    scene.write("tree/a", "a", 0o644);
    let job = scene.job();
    let staged = first(&job);
    assert_eq!(moved(&look(&job, &staged)), ["a"]);
}

/// Only changed entries are copied again; the others are not touched, not even renamed.
#[test]
fn a_further_attempt_replaces_the_copies_of_changed_entries() {
    let scene = Scene::new();
    for name in ["moves", "stays", "goes"] {
        scene.write(&format!("tree/{name}"), "first", 0o644);
    }
    std::thread::sleep(Duration::from_millis(2100));
    let job = scene.job();
    let one = first(&job);
    let look_at = |name: &str| fs::metadata(scene.copy(name)).unwrap();
    let before = ["moves", "stays"].map(look_at);
    scene.write("tree/moves", "other", 0o644);
    scene.write("tree/comes", "new", 0o644);
    fs::remove_file(scene.temp.path().join("tree/goes")).unwrap();
    settle_clock();
    let two = again(&job, &one);
    assert_eq!(moved(&two), ["comes", "goes", "moves"]);
    assert_eq!((two.files, two.bytes), (3, 13));
    // Only files that are old enough may be linked to later.
    let file_stamps: Vec<&[u8]> = two.file_stamps.iter().map(|(rel, _)| &rel[..]).collect();
    assert_eq!(file_stamps, [b"stays"]);
    assert_eq!(fs::read(scene.copy("moves")).unwrap(), b"other");
    assert_eq!(fs::read(scene.copy("comes")).unwrap(), b"new");
    assert!(!scene.copy("goes").exists());
    assert_ne!(look_at("moves").ino(), before[0].ino());
    let stays = look_at("stays");
    let of = |meta: &fs::Metadata| (meta.ino(), meta.ctime(), meta.ctime_nsec());
    assert_eq!(of(&stays), of(&before[1]));
    assert_eq!(fs::read_dir(scene.copy("")).unwrap().count(), 3);
    let top = scene.temp.path().join("snapshot");
    assert_eq!(fs::read_dir(top).unwrap().count(), 1);
}

/// An entry becomes one of any other kind, between two attempts or during one. Afterwards the copy
/// equals the tree, with its modes, times and hard links.
#[test]
fn after_any_change_the_copy_equals_the_tree() {
    type Change = fn(&Path);
    let changes: &[(&str, Change)] = &[
        ("file to directory", |d| {
            fs::remove_file(d.join("file")).unwrap();
            fs::create_dir(d.join("file")).unwrap();
            fs::write(d.join("file/in"), "in").unwrap();
        }),
        ("file to link", |d| {
            fs::remove_file(d.join("file")).unwrap();
            symlink("elsewhere", d.join("file")).unwrap();
        }),
        ("directory to file", |d| {
            fs::remove_dir_all(d.join("deep")).unwrap();
            fs::write(d.join("deep"), "flat").unwrap();
        }),
        ("directory to link", |d| {
            fs::rename(d.join("deep"), d.join("deeper")).unwrap();
            symlink("deeper", d.join("deep")).unwrap();
        }),
        ("link to directory", |d| {
            fs::remove_file(d.join("link")).unwrap();
            fs::rename(d.join("deep"), d.join("link")).unwrap();
        }),
        ("directories change places", |d| {
            let top = Dir::open(d).unwrap();
            top.exchange("deep", &top, "other").unwrap();
        }),
        ("renamed forward", |d| {
            fs::rename(d.join("deep/er"), d.join("z")).unwrap()
        }),
        ("renamed back", |d| {
            fs::rename(d.join("deep/er"), d.join("a")).unwrap()
        }),
        ("gone", |d| fs::remove_dir_all(d.join("deep")).unwrap()),
        ("a name less", |d| fs::remove_file(d.join("one")).unwrap()),
        ("a name more", |d| {
            fs::hard_link(d.join("one"), d.join("deep/three")).unwrap()
        }),
        ("names part", |d| {
            fs::remove_file(d.join("two")).unwrap();
            fs::write(d.join("two"), "one").unwrap();
        }),
        ("names meet", |d| {
            fs::remove_file(d.join("file")).unwrap();
            fs::hard_link(d.join("one"), d.join("file")).unwrap();
        }),
        ("written through a name", |d| {
            fs::write(d.join("two"), "changed").unwrap()
        }),
        ("closed directory", |d| {
            fs::write(d.join("closed/new"), "new").unwrap()
        }),
        ("modes", |d| {
            chmod(&d.join("deep"), 0o500);
            chmod(&d.join("file"), 0o400);
        }),
    ];
    // During the first walk, between the two, or during the second.
    let moments = [
        "a-first",
        "deep",
        "deep/er/file",
        "one",
        "other/x",
        "two",
        "zz",
    ];
    let moments = moments.map(|at| [(true, at), (false, at)]).concat();
    let moments = [&moments[..], &[(true, "")]].concat();
    std::thread::scope(|scope| {
        for moment in &moments {
            scope.spawn(move || {
                for (what, change) in changes {
                    becomes_the_tree(what, *change, *moment);
                }
            });
        }
    });
}

/// Stages a tree; `change` runs before an item of the first walk or the second, or between the two.
fn becomes_the_tree(what: &str, change: fn(&Path), moment: (bool, &str)) {
    let what = format!("{what} at {moment:?}");
    let scene = Scene::new();
    let dir = scene.temp.path().join("tree");
    for made in ["deep/er", "other", "closed"] {
        fs::create_dir_all(dir.join(made)).unwrap();
    }
    for name in ["a-first", "deep/er/file", "file", "one", "other/x", "zz"] {
        fs::write(dir.join(name), name).unwrap();
    }
    fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
    symlink("file", dir.join("link")).unwrap();
    chmod(&dir.join("closed"), 0o555);
    settle_clock();
    let job = scene.job();
    let aside = OnceCell::new();
    let changed = || change(&dir);
    let made = match moment {
        (true, "") => {
            let made = first(&job);
            changed();
            made
        }
        (true, at) => pass_with(&job, WalkKind::First, &aside, at, changed).unwrap(),
        (false, at) => {
            let made = first(&job);
            pass_with(&job, WalkKind::CopyChanged(&made), &aside, at, changed).unwrap()
        }
    };
    settle_clock();
    // Entries that were in doubt are certain after the second walk.
    let made = again(&job, &made);
    let mut made = again(&job, &made);
    assert!(made.cause.is_none(), "{what}: {:?}", made.cause);
    assert!(made.moved.is_empty(), "{what}: {:?}", made.moved);
    assert!(look(&job, &made).moved.is_empty(), "{what}");
    drop(aside);
    finish(&job, &mut made).unwrap();
    assert!(made.skipped.is_empty(), "{what}: {:?}", made.skipped);
    let copies = scene.snapshot.sub("files").unwrap();
    assert_eq!(describe(&copies), describe(&scene.root), "{what}");
    let kinds = walk(&scene.root, &scene.filter).unwrap();
    let is_file = |one: &Walked| matches!(one, Walked::Found(found) if found.meta.is_file());
    let files = kinds.filter(is_file).count() as u64;
    assert_eq!(made.files, files, "{what}");
    let mtime = |dir: &Dir| dir.meta("").map(|meta| (meta.mtime(), meta.mtime_nsec()));
    assert_eq!(
        mtime(&copies).unwrap(),
        mtime(&scene.root).unwrap(),
        "{what}"
    );
}

/// A link to a copy that was made before a change has the old content.
#[test]
fn a_name_that_was_linked_to_an_older_copy_is_in_doubt() {
    let scene = Scene::new();
    let path = |name: &str| scene.temp.path().join("tree").join(name);
    scene.write("tree/a", "first", 0o644);
    fs::hard_link(path("a"), path("z")).unwrap();
    scene.write("tree/m", "m", 0o644);
    settle_clock();
    let job = scene.job();
    let change = || {
        fs::write(path("a"), "other").unwrap();
        settle_clock();
    };
    let one = pass_with(&job, WalkKind::First, &OnceCell::new(), "m", change).unwrap();
    assert_eq!(fs::read(scene.copy("z")).unwrap(), b"first");
    assert_eq!(moved(&look(&job, &one)), ["a", "z"]);
    assert_eq!(again(&job, &one).bytes, 6);
    assert_eq!(fs::read(scene.copy("z")).unwrap(), b"other");
}

/// The second attempt keeps the report on a file that stays unreadable or torn.
#[test]
fn the_report_on_an_unchanged_file_is_kept() {
    let scene = Scene::new();
    scene.write("tree/a", "a", 0o644);
    scene.write("tree/b", "b", 0o644);
    settle_clock();
    let job = scene.job();
    let mut one = first(&job);
    one.skipped.push(Skipped {
        path: "files/a".to_owned(),
        reason: "why".to_owned(),
    });
    let mut seen = super::super::SeenEntries::default();
    let mut cursor = one.seen.cursor();
    while let Some((rel, mut state)) = cursor.get() {
        state.flags |= if rel == b"a" { flag::SKIPPED } else { 0 };
        seen.note(rel, state);
        cursor.advance();
    }
    one.seen = seen;
    scene.write("tree/b", "other", 0o644);
    let two = again(&job, &one);
    assert_eq!(two.skipped.len(), 1);
    assert_eq!(two.skipped[0].reason, "why");
}

/// A live database is copied again only if it has changed.
#[test]
fn a_live_database_is_copied_again_if_it_changed() {
    let scene = Scene::new();
    let path = scene.temp.path().join("tree/live.db");
    let live = crate::base::sqlite::open_for_test(&path);
    live.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x); INSERT INTO t VALUES (1)",
    )
    .unwrap();
    scene.write("tree/log", "first", 0o644);
    settle_clock();
    let job = scene.job();
    let one = first(&job);
    assert!(one.file_stamps.iter().all(|(rel, _)| rel != b"live.db"));
    let inode = || fs::metadata(scene.copy("live.db")).unwrap().ino();
    let rows = || -> u32 {
        let copy = crate::base::sqlite::open_for_test(&scene.copy("live.db"));
        let count = "SELECT count(*) FROM t";
        copy.query_row(count, [], |row| row.get(0)).unwrap()
    };
    let before = inode();
    scene.write("tree/log", "second", 0o644);
    settle_clock();
    let two = again(&job, &one);
    assert_eq!((moved(&two), inode()), (vec!["log".to_owned()], before));
    assert_eq!(rows(), 1);
    assert_eq!(two.databases, [b"live.db"]);
    assert!(!scene.copy("live.db-wal").exists());

    live.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    settle_clock();
    let three = again(&job, &two);
    assert!(moved(&three).contains(&"live.db".to_owned()));
    assert_eq!(rows(), 2);
    let four = look(&job, &three);
    assert_eq!(moved(&four), [""; 0]);
    assert_eq!(four.databases, [b"live.db"]);
}
