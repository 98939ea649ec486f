//! Targets that are folders in a directory of the other user's: what is written, listed and deleted there stays there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::racer::{Plan, decoys};
use super::scene::{Scene, Storm, is_possible};
use crate::support::files::make_fifo;
use crate::support::host::Host;

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
        fs::create_dir(vault.join("target")).unwrap();
        copy(&host.folder(), &vault.join("target/dalidou"));
        for name in NAMES {
            fs::create_dir_all(vault.join("target/dalidou").join(name)).unwrap();
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
/// Of a plan: the target itself, those, a shelf of archives, a manifest for a FIFO, and what appears in `.tmp`.
const WAYS: u64 = 11;

fn folder(scene: &Scene, home: &Path, name: &str) {
    copy(&scene.host.path("repo"), &home.join(name));
    let dir = home.join(name).join("dalidou");
    for (n, name) in NAMES.iter().enumerate() {
        fs::create_dir_all(dir.join(name)).unwrap();
        let mirror = scene.vault.dir.join("target/dalidou");
        symlink(mirror.join(name), home.join(format!(".link{n}"))).unwrap();
    }
    make_fifo(&home.join(".fifo"));
    for name in ["target", "empty"] {
        symlink(
            scene.vault.dir.join(name),
            home.join(format!(".link-{name}")),
        )
        .unwrap();
    }
    decoys(&dir.join(".tmp"), &scene.vault.dir);
    let shelves = fs::read_dir(dir.join("archives")).unwrap();
    let shelf = shelves.map(|entry| entry.unwrap().path()).min().unwrap();
    let mirrored = scene
        .vault
        .dir
        .join("target/dalidou/archives")
        .join(shelf.file_name().unwrap());
    symlink(mirrored, home.join(".link-shelf")).unwrap();
}

fn plan(home: &Path, name: &str, round: u64) -> Plan {
    let dir = home.join(name).join("dalidou");
    let mut plan = Plan::default();
    let mut pair = match (round % WAYS) as usize {
        0 => (home.join(name), home.join(".link-target")),
        n @ 1..8 => (dir.join(NAMES[n - 1]), home.join(format!(".link{}", n - 1))),
        8 => {
            let shelves = fs::read_dir(dir.join("archives")).unwrap();
            let shelf = shelves.map(|entry| entry.unwrap().path()).min().unwrap();
            (shelf, home.join(".link-shelf"))
        }
        9 => (a_manifest(&dir), home.join(".fifo")),
        _ => {
            let watched = (dir.join(".tmp"), "put-".to_owned());
            plan.watched.push(watched);
            return plan;
        }
    };
    if name == "copy" {
        // The mirror has every object already: what is written shows in an empty directory.
        pair.1 = home.join(".link-empty");
    }
    // What is exchanged all the time lets few operations get far.
    match (round / WAYS).is_multiple_of(2) {
        true => plan.once.push(pair),
        false => plan.pairs.push(pair),
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
            let is_copy = round.is_multiple_of(2) && round % WAYS != 9;
            let name = if is_copy { "copy" } else { "repo" };
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
