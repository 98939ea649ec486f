//! Backups, and what looks at snapshots on the host: the other user owns what is read.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::racer::{Plan, decoys};
use super::scene::{Ran, Scene, Storm, clear, is_possible};
use super::vault::{SECRET, databases, find};
use crate::support::files::make_fifo;

const PAIRS: usize = 6;
const DATABASES: usize = 1;
const MINE: &str = "of the other user";

/// A tree of the other user's in which directories and files have a counterpart beside them.
fn tree(scene: &Scene, dir: &Path) {
    fs::create_dir(dir).unwrap();
    let closed = scene.vault.dir.join("closed");
    for n in 0..PAIRS {
        let inner = dir.join(format!("d{n}"));
        fs::create_dir_all(inner.join("data")).unwrap();
        for name in ["shadow", "new", "planted"] {
            fs::write(inner.join(name), format!("{MINE} {n}")).unwrap();
        }
        fs::write(inner.join("data/planted"), MINE).unwrap();
        let other = dir.join(format!(".z{n}"));
        match n % 5 {
            3 => make_fifo(&other),
            4 => symlink(scene.vault.dir.join("empty"), other).unwrap(),
            _ => symlink(&closed, other).unwrap(),
        }
        let (file, other) = (dir.join(format!("f{n}")), dir.join(format!(".y{n}")));
        fs::write(file, format!("{MINE} {n}")).unwrap();
        match n % 4 {
            0 => make_fifo(&other),
            1 => symlink(scene.vault.dir.join("recorded"), other).unwrap(),
            _ => symlink(closed.join("shadow"), other).unwrap(),
        }
        let cache = dir.join(format!("c{n}"));
        fs::create_dir(&cache).unwrap();
        let tag = "Signature: 8a477f597d28d172789f06886806bc55";
        fs::write(cache.join("CACHEDIR.TAG"), tag).unwrap();
        make_fifo(&cache.join("z"));
    }
    for n in 0..DATABASES {
        databases(&[dir.join(format!("app{n}.db"))], MINE);
        symlink(closed.join("app.db"), dir.join(format!(".x{n}"))).unwrap();
        symlink(closed.join("app.db-wal"), dir.join(format!(".w{n}"))).unwrap();
    }
    fs::write(dir.join("steady"), MINE).unwrap();
}

fn tree_plan(dir: &Path) -> Plan {
    let pair = |one: String, other: String| (dir.join(one), dir.join(other));
    let mut pairs = Vec::new();
    for n in 0..PAIRS {
        pairs.push(pair(format!("d{n}"), format!(".z{n}")));
        pairs.push(pair(format!("f{n}"), format!(".y{n}")));
        pairs.push(pair(format!("c{n}/CACHEDIR.TAG"), format!("c{n}/z")));
    }
    for n in 0..DATABASES {
        pairs.push(pair(format!("app{n}.db"), format!(".x{n}")));
        pairs.push(pair(format!("app{n}.db-wal"), format!(".w{n}")));
    }
    Plan {
        pairs,
        ..Plan::default()
    }
}

fn succeeded(ran: &Ran) -> bool {
    matches!(ran.code, Some(0 | 3))
}

/// No snapshot on the host holds anything from outside; all of them are removed.
fn assert_local_is_clean(ran: &Ran, dir: &Path) {
    let found = find(dir, SECRET);
    assert_eq!(
        found, None,
        "{}: a snapshot holds a file from outside",
        ran.at
    );
    for entry in fs::read_dir(dir).into_iter().flatten() {
        clear(&entry.unwrap().path());
    }
}

#[test]
fn a_backup_of_a_tree_in_place() {
    if !is_possible() {
        return;
    }
    let source =
        "[[source]]\nkind = \"tree\"\npath = \"@/home/tree\"\nto = \"tree\"\nstage = false\n";
    let scene = Scene::new(source, |_, _| {});
    scene.weather(&Storm {
        what: "backup of a tree in place",
        prepare: &|scene, home| tree(scene, &home.join("tree")),
        plan: &|home, _| tree_plan(&home.join("tree")),
        operate: &|scene, _| scene.host.command(&["backup"]),
        check: &|scene, ran| {
            if succeeded(ran) {
                scene.assert_newest_is_clean(ran);
            }
        },
    });
}

/// Finding L1: a FIFO that takes a file's place must not be waited for.
#[test]
fn a_backup_of_files_that_become_fifos() {
    if !is_possible() {
        return;
    }
    let source = "[[source]]\nkind = \"tree\"\npath = \"@/home/tree\"\nto = \"tree\"\nstage = false\n\n\
        [[source]]\nkind = \"tree\"\npath = \"@/home/staged\"\nto = \"staged\"\n";
    let scene = Scene::new(source, |_, _| {});
    let names = ["f0", "app0.db", "app0.db-wal"];
    scene.weather(&Storm {
        what: "backup of files that become FIFOs",
        prepare: &|scene, home| {
            for dir in ["tree", "staged"].map(|name| home.join(name)) {
                tree(scene, &dir);
                names
                    .iter()
                    .for_each(|name| make_fifo(&dir.join(format!(".p-{name}"))));
            }
        },
        plan: &|home, round| {
            let dir = home.join(if round.is_multiple_of(4) {
                "staged"
            } else {
                "tree"
            });
            let mut plan = tree_plan(&dir);
            plan.pairs.retain(|(one, _)| one.ends_with("CACHEDIR.TAG"));
            let others = names
                .iter()
                .map(|name| (dir.join(name), dir.join(format!(".p-{name}"))));
            plan.pairs.extend(others);
            plan
        },
        operate: &|scene, _| scene.host.command(&["backup"]),
        check: &|_, _| {},
    });
}

/// The root of the source itself is in a directory of the other user's.
#[test]
fn a_backup_of_a_tree_whose_root_is_exchanged() {
    if !is_possible() {
        return;
    }
    let source = "[[source]]\nkind = \"tree\"\npath = \"@/home/tree\"\nto = \"tree\"\nstage = false\n\n\
        [[source]]\nkind = \"tree\"\npath = \"@/home/staged\"\nto = \"staged\"\n";
    let scene = Scene::new(source, |_, _| {});
    scene.weather(&Storm {
        what: "backup of a tree whose root is exchanged",
        prepare: &|scene, home| {
            for name in ["tree", "staged"] {
                tree(scene, &home.join(name));
                symlink(
                    scene.vault.dir.join("closed"),
                    home.join(format!(".{name}")),
                )
                .unwrap();
            }
        },
        plan: &|home, _| Plan {
            pairs: ["tree", "staged"]
                .map(|name| (home.join(name), home.join(format!(".{name}"))))
                .to_vec(),
            ..Plan::default()
        },
        operate: &|scene, _| scene.host.command(&["backup"]),
        check: &|scene, ran| {
            if succeeded(ran) {
                scene.assert_newest_is_clean(ran);
            }
        },
    });
}

#[test]
fn a_backup_of_a_staged_tree() {
    if !is_possible() {
        return;
    }
    let source = "[[source]]\nkind = \"tree\"\npath = \"@/home/tree\"\nto = \"tree\"\n";
    let scene = Scene::new(source, |_, _| {});
    scene.weather(&Storm {
        what: "backup of a staged tree",
        prepare: &|scene, home| tree(scene, &home.join("tree")),
        plan: &|home, _| tree_plan(&home.join("tree")),
        operate: &|scene, _| scene.host.command(&["backup"]),
        check: &|scene, ran| assert_local_is_clean(ran, &scene.host.path("c.state/snapshots")),
    });
}

/// As AtoCore has it: the snapshots are kept in a directory of the application's own user.
#[test]
fn a_backup_into_a_snapshots_directory_of_another_user() {
    if !is_possible() {
        return;
    }
    let source = "[snapshots]\ndir = \"@/home/snapshots\"\n\n\
        [[source]]\nkind = \"tree\"\npath = \"@/data\"\nto = \"data\"\n";
    let scene = Scene::new(source, |host, _| {
        fs::create_dir(host.data().join("d0")).unwrap();
        for name in ["d0/shadow", "d0/planted", "file", "shadow"] {
            fs::write(host.data().join(name), "what is backed up").unwrap();
        }
        databases(&[host.data().join("app.db")], "what is backed up");
    });
    scene.weather(&Storm {
        what: "backup into a snapshots directory of another user",
        prepare: &|scene, home| {
            let dir = home.join("snapshots");
            fs::create_dir(&dir).unwrap();
            decoys(&dir, &scene.vault.dir);
        },
        plan: &|home, _| Plan {
            watched: vec![(home.join("snapshots"), "Z".to_owned())],
            ..Plan::default()
        },
        operate: &|scene, _| scene.host.command(&["backup"]),
        check: &|scene, ran| {
            let found = find(&scene.home(), SECRET);
            assert_eq!(found, None, "{}: copied to the other user", ran.at);
            if succeeded(ran) {
                scene.assert_newest_is_clean(ran);
            }
        },
    });
}

/// A database, a JSON file and a lock file, each by its own source, in a directory of the other user's.
fn single_files(scene: &Scene, dir: &Path) {
    fs::create_dir(dir).unwrap();
    let closed = scene.vault.dir.join("closed");
    databases(&[dir.join("app.db")], MINE);
    fs::write(dir.join("registry.json"), format!("{{\"x\": \"{MINE}\"}}")).unwrap();
    fs::write(dir.join("lock"), "").unwrap();
    fs::create_dir(dir.join("files")).unwrap();
    fs::write(dir.join("files/shadow"), MINE).unwrap();
    for name in ["app.db", "app.db-wal", "registry.json", "lock", "files"] {
        let to = if name == "files" {
            closed.clone()
        } else {
            closed.join(name)
        };
        symlink(to, dir.join(format!(".link-{name}"))).unwrap();
        make_fifo(&dir.join(format!(".fifo-{name}")));
    }
}

#[test]
fn a_backup_of_a_database_a_json_file_and_what_a_lock_guards() {
    if !is_possible() {
        return;
    }
    let source = "[[source]]\nkind = \"sqlite\"\npath = \"@/home/app/app.db\"\nto = \"app.db\"\n\n\
        [[source]]\nkind = \"json\"\npath = \"@/home/app/registry.json\"\nto = \"registry.json\"\n\n\
        [[source]]\nkind = \"tree\"\npath = \"@/home/app/files\"\nto = \"files\"\n\
        lock = \"@/home/app/lock\"\nlock_timeout = \"1s\"\n";
    let scene = Scene::new(source, |_, _| {});
    scene.weather(&Storm {
        what: "backup of a database, a JSON file and a tree under a lock",
        prepare: &|scene, home| {
            single_files(scene, &home.join("app"));
            symlink(scene.vault.dir.join("closed"), home.join(".link-app")).unwrap();
        },
        plan: &|home, round| {
            let dir = home.join("app");
            let names = ["app.db", "app.db-wal", "registry.json", "lock", "files"];
            let name = names[round as usize % 5];
            let kind = if round.is_multiple_of(3) {
                "fifo"
            } else {
                "link"
            };
            let one = (dir.join(name), dir.join(format!(".{kind}-{name}")));
            let whole = (dir, home.join(".link-app"));
            Plan {
                pairs: if round % 7 == 6 {
                    vec![whole]
                } else {
                    vec![one]
                },
                ..Plan::default()
            }
        },
        operate: &|scene, _| scene.host.command(&["backup"]),
        check: &|scene, ran| assert_local_is_clean(ran, &scene.host.path("c.state/snapshots")),
    });
}

/// A snapshot directory that some tool of the other user's has made.
fn foreign_snapshot(scene: &Scene, dir: &Path) {
    for name in ["db", "config", "chroma"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    databases(
        &["db/atocore.db", "chroma/chroma.sqlite3"].map(|name| dir.join(name)),
        MINE,
    );
    for name in ["backup-metadata.json", "config/project-registry.json"] {
        fs::write(dir.join(name), "{\"x\": 1}").unwrap();
    }
    fs::write(dir.join("chroma/shadow"), MINE).unwrap();
    let closed = scene.vault.dir.join("closed");
    for (n, name) in EXCHANGED.iter().enumerate() {
        symlink(closed.join(name), dir.join(format!(".link{n}"))).unwrap();
        make_fifo(&dir.join(name).with_file_name(format!(".fifo{n}")));
    }
}

/// What is exchanged in such a snapshot, for its namesake in the vault or for a FIFO.
const EXCHANGED: [&str; 9] = [
    "db",
    "config",
    "chroma",
    "db/atocore.db",
    "db/atocore.db-wal",
    "config/project-registry.json",
    "chroma/chroma.sqlite3",
    "chroma/shadow",
    "backup-metadata.json",
];

fn snapshot_plan(home: &Path, round: u64) -> Plan {
    let dir = home.join("snapshot");
    let n = round as usize % EXCHANGED.len();
    let name = dir.join(EXCHANGED[n]);
    let other = match round % 4 {
        3 => name.with_file_name(format!(".fifo{n}")),
        _ => dir.join(format!(".link{n}")),
    };
    Plan {
        pairs: vec![(name, other)],
        ..Plan::default()
    }
}

#[test]
fn validate_of_a_snapshot_of_another_user() {
    if !is_possible() {
        return;
    }
    let scene = Scene::new("", |_, _| {});
    scene.weather(&Storm {
        what: "validate --dir",
        prepare: &|scene, home| foreign_snapshot(scene, &home.join("snapshot")),
        plan: &snapshot_plan,
        operate: &|scene, _| scene.host.command(&["validate", "--dir", "home/snapshot"]),
        check: &|_, _| {},
    });
}

#[test]
fn push_of_a_snapshot_of_another_user() {
    if !is_possible() {
        return;
    }
    let scene = Scene::new("", |_, _| {});
    scene.weather(&Storm {
        what: "push --dir",
        prepare: &|scene, home| foreign_snapshot(scene, &home.join("snapshot")),
        plan: &snapshot_plan,
        operate: &|scene, _| scene.host.command(&["push", "--dir", "home/snapshot"]),
        check: &|scene, ran| {
            if succeeded(ran) {
                scene.assert_newest_is_clean(ran);
            }
        },
    });
}
