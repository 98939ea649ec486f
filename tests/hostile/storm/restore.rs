//! Restores, by the program and by hand: the other user owns the directory in which the destination is made.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::racer::{Plan, Spied, decoys};
use super::scene::{Ran, Scene, Storm, is_possible};
use super::vault::find;

/// In a file that each snapshot has, whose directory is closed to others on the host.
const PRIVATE: &str = "STORM-PRIVATE";

/// A host with one snapshot of a tree that has a few hundred entries.
fn scene() -> Scene {
    let scene = Scene::new("", |host, _| {
        for n in 0..20 {
            let dir = host.data().join(format!("d{n}"));
            fs::create_dir(&dir).unwrap();
            for file in 0..10 {
                fs::write(dir.join(format!("f{file}")), format!("{n} {file}")).unwrap();
            }
        }
        fs::write(host.data().join("big"), vec![7; 2_000_000]).unwrap();
        fs::write(host.data().join("shown"), PRIVATE).unwrap();
        let database = rusqlite::Connection::open(host.data().join("app.db")).unwrap();
        let statements = "CREATE TABLE t(x); INSERT INTO t VALUES (1)";
        database.execute_batch(statements).unwrap();
    });
    // Open in itself, in a closed directory: that is how another user could read it where it is restored.
    fs::set_permissions(scene.host.data(), fs::Permissions::from_mode(0o755)).unwrap();
    scene.host.backup();
    scene
}

fn restore(scene: &Scene, more: &[&str]) -> Command {
    let (repo, key) = (scene.host.path("repo"), scene.host.path("key.txt"));
    let from = ["restore", "latest", "--from", repo.to_str().unwrap()];
    let with = [
        "--identity",
        key.to_str().unwrap(),
        "--signer",
        &scene.host.signer,
    ];
    scene.host.command(&[&from[..], &with, more].concat())
}

/// The decoys beside the destination, whatever else is there.
fn with_decoys(scene: &Scene, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    decoys(dir, &scene.vault.dir);
}

/// Exit code 0 means that the tree is there, under whatever name the other user gave it since.
fn assert_complete(scene: &Scene, ran: &Ran, ending: &str) {
    if ran.code == Some(0) {
        let found = ends_with(&scene.home(), Path::new(ending));
        assert!(found, "exit code 0, and {ending} is nowhere\n{}", ran.said);
    }
}

/// Whether there is a file below `dir` whose path ends so; links are not followed.
fn ends_with(dir: &Path, ending: &Path) -> bool {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths.into_iter().any(|path| {
        let is_dir = fs::symlink_metadata(&path).unwrap().is_dir();
        is_dir && ends_with(&path, ending) || path.ends_with(ending)
    })
}

fn watching(dir: &Path, part: &str) -> Plan {
    Plan {
        watched: vec![(dir.to_owned(), part.to_owned())],
        ..Plan::default()
    }
}

#[test]
fn a_restore_to_a_new_directory() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "restore to a new directory",
        prepare: &|scene, home| with_decoys(scene, home),
        plan: &|home, _| watching(home, ".sealift-partial-"),
        operate: &|scene, _| restore(scene, &["--to", "home/out"]),
        check: &|scene, ran| assert_complete(scene, ran, "d19/f9"),
    });
}

#[test]
fn a_restore_of_a_part() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "restore of a part",
        prepare: &|scene, home| with_decoys(scene, home),
        plan: &|home, _| watching(home, ".sealift-partial-"),
        operate: &|scene, _| restore(scene, &["data/d3", "data/shown", "--to", "home/out"]),
        check: &|scene, ran| assert_complete(scene, ran, "d3/f9"),
    });
}

/// A destination that has content of the other user's.
fn full(scene: &Scene, dir: &Path) {
    with_decoys(scene, dir);
    for name in ["data", "old"] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("file"), "old").unwrap();
        symlink(
            scene.vault.dir.join("closed"),
            dir.join(format!(".link-{name}")),
        )
        .unwrap();
    }
    fs::write(dir.join("file"), "old").unwrap();
    symlink(scene.vault.dir.join("recorded"), dir.join(".link-file")).unwrap();
}

#[test]
fn a_restore_over_a_directory() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "restore --overwrite",
        prepare: &|scene, home| {
            with_decoys(scene, home);
            full(scene, &home.join("x"));
            symlink(scene.vault.dir.join("closed"), home.join(".link-x")).unwrap();
        },
        plan: &|home, round| {
            let mut plan = watching(home, ".sealift-partial-");
            plan.watched
                .push((home.to_owned(), ".before-restore-".to_owned()));
            if round % 4 == 3 {
                plan.pairs.push((home.join("x"), home.join(".link-x")));
            }
            plan
        },
        operate: &|scene, _| restore(scene, &["--to", "home/x", "--overwrite"]),
        check: &|scene, ran| assert_complete(scene, ran, "d19/f9"),
    });
}

/// Into the current directory: entries move one by one.
#[test]
fn a_restore_inside_a_directory() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "restore --to . --overwrite",
        prepare: &|scene, home| full(scene, &home.join("x")),
        plan: &|home, round| {
            let dir = home.join("x");
            let parts = [".sealift-partial-", "before-restore-", "data"];
            let mut plan = watching(&dir, parts[round as usize % 3]);
            if round % 2 == 1 {
                let name = ["data", "old", "file"][round as usize % 3];
                plan.pairs
                    .push((dir.join(name), dir.join(format!(".link-{name}"))));
            }
            plan
        },
        operate: &|scene, _| {
            let mut command = restore(scene, &["--to", ".", "--overwrite"]);
            command.current_dir(scene.home().join("x"));
            command.env_remove("SEALIFT_CONFIG");
            command
        },
        check: &|scene, ran| assert_complete(scene, ran, "d19/f9"),
    });
}

#[test]
fn verify_with_an_identity() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "verify --identity --scratch",
        prepare: &|scene, home| with_decoys(scene, &home.join("scratch")),
        plan: &|home, _| watching(&home.join("scratch"), "sealift-verify-"),
        operate: &|scene, _| verify(scene, "home/scratch"),
        check: &|_, _| {},
    });
}

fn verify(scene: &Scene, scratch: &str) -> Command {
    let from = ["verify", "--from", "repo", "--signer", &scene.host.signer];
    let with = ["--identity", "key.txt", "--scratch", scratch];
    scene.host.command(&[&from[..], &with].concat())
}

/// Finding H2: in the directory for temporary files, where every user looks, root's decrypted files are closed.
#[test]
fn verify_shows_nothing_to_another_user() {
    if !is_possible() {
        return;
    }
    let scene = scene();
    let scratch = scene.host.path("scratch");
    fs::create_dir(&scratch).unwrap();
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o1777)).unwrap();
    scene.weather(&Storm {
        what: "verify --identity, watched",
        prepare: &|_, home| fs::create_dir(home.join("spy")).unwrap(),
        plan: &|home, _| Plan {
            spied: Some(Spied {
                dir: scratch.clone(),
                part: "sealift-verify-".to_owned(),
                text: PRIVATE.to_owned(),
                noted: home.join("spy/read"),
            }),
            ..Plan::default()
        },
        operate: &|scene, _| verify(scene, "scratch"),
        check: &|_, ran| assert_eq!(ran.code, Some(0), "{}", ran.said),
    });
}

/// Finding M7: `recover.py`, which stock Python runs.
#[test]
fn a_recovery_by_hand() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "recover.py",
        prepare: &|scene, home| {
            with_decoys(scene, home);
            fs::create_dir(home.join("inner")).unwrap();
            symlink(scene.vault.dir.join("empty"), home.join(".link-inner")).unwrap();
        },
        plan: &|home, round| {
            let mut plan = watching(home, "out.partial-");
            if round % 4 == 3 {
                plan.pairs
                    .push((home.join("inner"), home.join(".link-inner")));
            }
            plan
        },
        operate: &|scene, round| {
            let to = if round % 4 == 3 {
                "home/inner/out"
            } else {
                "home/out"
            };
            let mut command = scene.host.recover_command("latest", to);
            command.stdin(Stdio::null());
            command
        },
        check: &|scene, ran| {
            if ran.code == Some(0) {
                let found = find(&scene.home(), PRIVATE);
                assert!(
                    found.is_some(),
                    "exit code 0, and nothing is there\n{}",
                    ran.said
                );
            }
        },
    });
}
