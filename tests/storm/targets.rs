//! Targets that are folders in a directory of the other user's: what is written, listed and deleted there stays there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::racer::{Plan, decoys, fifo};
use crate::scene::{Scene, Storm, is_possible};

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success());
}

/// A host with four snapshots, and a copy of its folder in the vault: whatever is deleted by name, is there too.
fn scene() -> Scene {
    Scene::new("", |host: &Host, vault| {
        for n in 0..4 {
            fs::write(host.data().join(format!("file{n}")), vec![n; 30_000]).unwrap();
            fs::write(host.data().join("same"), vec![n; 3_000]).unwrap();
            host.backup();
        }
        copy(&host.folder(), &vault.join("mirror"));
        for name in NAMES {
            fs::create_dir_all(vault.join("mirror").join(name)).unwrap();
        }
    })
}

/// Directories of a host's folder that are exchanged for links to those of the mirror.
const NAMES: [&str; 7] = [
    "",
    "manifests",
    "archives",
    "tables",
    "tombstones",
    "marks",
    ".tmp",
];
/// Of a plan: those, a shelf of archives, a manifest for a FIFO, and what appears in `.tmp`.
const WAYS: u64 = 10;

fn folder(scene: &Scene, home: &Path, name: &str) {
    copy(&scene.host.path("repo"), &home.join(name));
    let dir = home.join(name).join("dalidou");
    for (n, name) in NAMES.iter().enumerate() {
        fs::create_dir_all(dir.join(name)).unwrap();
        let mirror = scene.vault.dir.join("mirror");
        symlink(mirror.join(name), home.join(format!(".link{n}"))).unwrap();
    }
    fifo(&home.join(".fifo"));
    decoys(&dir.join(".tmp"), &scene.vault.dir);
    let shelves = fs::read_dir(dir.join("archives")).unwrap();
    let shelf = shelves.map(|entry| entry.unwrap().path()).min().unwrap();
    let mirrored = scene
        .vault
        .dir
        .join("mirror/archives")
        .join(shelf.file_name().unwrap());
    symlink(mirrored, home.join(".link-shelf")).unwrap();
}

fn plan(home: &Path, name: &str, round: u64) -> Plan {
    let dir = home.join(name).join("dalidou");
    let n = (round % WAYS) as usize;
    let mut plan = Plan::default();
    match n {
        0..7 => plan
            .pairs
            .push((dir.join(NAMES[n]), home.join(format!(".link{n}")))),
        7 => {
            let shelves = fs::read_dir(dir.join("archives")).unwrap();
            let shelf = shelves.map(|entry| entry.unwrap().path()).min().unwrap();
            plan.pairs.push((shelf, home.join(".link-shelf")));
        }
        8 => plan.pairs.push((a_manifest(&dir), home.join(".fifo"))),
        _ => plan.watched.push((dir.join(".tmp"), "put-".to_owned())),
    }
    plan
}

fn a_manifest(dir: &Path) -> PathBuf {
    let names = fs::read_dir(dir.join("manifests")).unwrap();
    names.map(|entry| entry.unwrap().path()).min().unwrap()
}

#[test]
fn prune_of_a_folder_of_another_user() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "prune",
        prepare: &|scene, home| folder(scene, home, "repo"),
        plan: &|home, round| plan(home, "repo", round),
        operate: &|scene, _| {
            let from = [
                "prune",
                "--from",
                "home/repo",
                "--signer",
                &scene.host.signer,
            ];
            let policy = [
                "--policy",
                "last=1",
                "--yes",
                "--gone",
                "--sign-with",
                "c.signer",
            ];
            scene.host.command(&[&from[..], &policy].concat())
        },
        check: &|_, _| {},
    });
}

#[test]
fn sync_between_folders_of_another_user() {
    if !is_possible() {
        return;
    }
    scene().weather(&Storm {
        what: "sync",
        prepare: &|scene, home| {
            folder(scene, home, "repo");
            // The copy begins with the folders and no object.
            for name in NAMES {
                fs::create_dir_all(home.join("copy/dalidou").join(name)).unwrap();
            }
            decoys(&home.join("copy/dalidou/.tmp"), &scene.vault.dir);
            let shelves = fs::read_dir(home.join("repo/dalidou/archives")).unwrap();
            for shelf in shelves {
                let name = shelf.unwrap().file_name();
                fs::create_dir(home.join("copy/dalidou/archives").join(name)).unwrap();
            }
        },
        plan: &|home, round| {
            // Either side, one after the other.
            let name = if (round / WAYS).is_multiple_of(2) || round % WAYS == 8 {
                "repo"
            } else {
                "copy"
            };
            plan(home, name, round)
        },
        operate: &|scene, _| {
            let line = [
                "sync",
                "home/repo",
                "home/copy",
                "--signer",
                &scene.host.signer,
            ];
            scene.host.command(&line)
        },
        check: &|_, _| {},
    });
}
