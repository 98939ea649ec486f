//! `verify --repair` brings back what another place has whole; `verify --identity` opens what it finds.

use std::fs;
use std::path::PathBuf;

use sealift::base::ids::Hash;

use crate::restore::tamper::{self, Action, Kind};
use crate::support::files::files;
use crate::support::host::Host;
use crate::support::tree::{describe, noise};
use crate::verify::{below, flip, found, with_history};

/// Three snapshots, on two targets.
fn on_two() -> Host {
    let host = with_history();
    let other = host.path("other").display().to_string();
    let target = format!("\n[[target]]\nname = \"other\"\nurl = \"file://{other}\"\n");
    host.ok(&["sync", "./repo", "./other"]);
    fs::write(host.path("c.toml"), host.config() + &target).unwrap();
    host.backup();
    host.ok(&["verify", "--data"]);
    host
}

/// What another target has whole comes back from there; what none has is said to be lost.
#[test]
fn a_second_target_mends_the_first() {
    let host = with_history();
    let other = host.path("other").display().to_string();
    let target = format!("\n[[target]]\nname = \"other\"\nurl = \"file://{other}\"\n");
    host.ok(&["sync", "./repo", "./other"]);
    fs::write(host.path("c.toml"), host.config() + &target).unwrap();
    let archives = below(&host, "archives", ".age");
    fs::remove_file(&archives[0]).unwrap();
    flip(&archives[1]);
    fs::write(&archives[2], "cut").unwrap();
    let out = found(&host, &["--data", "--repair"]);
    assert_eq!(out.matches("whole again").count(), 3, "{out}");
    host.ok(&["verify", "--data"]);
    host.restore("latest", "out");
    for folder in [host.folder(), host.path("other/dalidou")] {
        fs::remove_file(&files(&folder.join("archives"))[0]).unwrap();
    }
    let out = found(&host, &["--repair"]);
    assert!(
        !out.contains("whole again") && out.contains("no target that can be read"),
        "{out}"
    );
}

/// Whatever kind it is and whatever befell it.
#[test]
fn everything_comes_back_from_the_second_target() {
    let host = on_two();
    for kind in tamper::KINDS {
        for action in [Action::Flip, Action::Empty, Action::Swap, Action::Delete] {
            // A manifest that is gone may have been deleted on purpose: `sync` brings it, if that is wanted.
            if (kind, action) == (Kind::Manifest, Action::Delete) {
                continue;
            }
            let case = format!("{kind:?}-{action:?}");
            let good = describe(&host.path("repo"));
            tamper::tamper(&host, kind, action);
            assert_ne!(describe(&host.path("repo")), good, "{case}");
            let out = found(&host, &["--data", "--repair"]);
            assert!(
                out.contains("was brought from other and is whole again"),
                "{case}: {out}"
            );
            assert!(!out.contains("could not be repaired"), "{case}: {out}");
            let content = |host: &Host| -> Vec<(PathBuf, Hash)> {
                let file = |path: PathBuf| {
                    let hash = Hash::blake3(&fs::read(&path).unwrap());
                    (path, hash)
                };
                files(&host.folder()).into_iter().map(file).collect()
            };
            host.ok(&["verify"]);
            host.ok(&["verify", "--data"]);
            let now = content(&host);
            let theirs = files(&host.path("other/dalidou"));
            assert_eq!(now.len(), theirs.len(), "{case}");
            for ((_, hash), path) in now.iter().zip(theirs) {
                assert_eq!(
                    *hash,
                    Hash::blake3(&fs::read(&path).unwrap()),
                    "{case}: {path:?}"
                );
            }
        }
    }
    host.restore("latest", "out");
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
}

/// Several at once, of a snapshot whose manifest tells what it needs only when it is back.
#[test]
fn a_manifest_comes_back_with_all_that_it_needs() {
    let host = on_two();
    let newest = tamper::tamper(&host, Kind::Signature, Action::Empty).remove(0);
    tamper::tamper(&host, Kind::IndexArchive, Action::Delete);
    tamper::tamper(&host, Kind::Table, Action::Flip);
    let out = found(&host, &["--repair"]);
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    let name = name.split('.').next().unwrap();
    assert!(
        out.contains(&format!("manifest {name} was brought from other")),
        "{out}"
    );
    host.ok(&["verify", "--data"]);
    host.restore("latest", "out");
}

/// As in a push: what names an archive that cannot be brought stays away.
#[test]
fn a_manifest_does_not_come_before_what_it_names() {
    let host = on_two();
    let archive = tamper::objects(&host, Kind::IndexArchive).pop().unwrap();
    let there = archive.strip_prefix(host.path("repo")).unwrap();
    fs::remove_file(host.path("other").join(there)).unwrap();
    fs::remove_file(&archive).unwrap();
    let signature = tamper::tamper(&host, Kind::Signature, Action::Empty).remove(0);
    let out = found(&host, &["--repair", "--target", "folder"]);
    assert!(!out.contains("was brought"), "{out}");
    assert_eq!(fs::read(&signature).unwrap(), b"");
}

/// A target that is away leaves what it lacks in the spool: the other can have it from there.
#[test]
fn the_spool_mends_too() {
    let host = on_two();
    fs::rename(host.path("other"), host.path("away")).unwrap();
    fs::write(host.data().join("late"), noise(50, 400_000)).unwrap();
    let before = below(&host, "archives", ".age");
    host.exits(&["backup"], 3);
    let new = below(&host, "archives", ".age")
        .into_iter()
        .filter(|path| !before.contains(path));
    let new: Vec<PathBuf> = new.collect();
    assert!(new.len() >= 2, "{new:?}");
    for path in &new {
        flip(path);
    }
    tamper::tamper(&host, Kind::Table, Action::Delete);
    let out = found(&host, &["--data", "--repair"]);
    assert_eq!(
        out.matches("was brought from the spool").count(),
        new.len() + 1,
        "{out}"
    );
    fs::rename(host.path("away"), host.path("other")).unwrap();
    host.backup();
    host.ok(&["verify", "--data"]);
    host.restore("latest", "out");
}

/// What is nowhere whole: nothing is deleted, and the next backup stores the content again.
#[test]
fn what_nobody_has_is_stored_again() {
    let host = with_history();
    let archives = tamper::objects(&host, Kind::DataArchive);
    let first = archives[0].clone();
    flip(&first);
    let out = found(&host, &["--data"]);
    assert!(out.contains("`sealift verify --repair` brings it"), "{out}");
    let again = host.backup();
    assert!(
        again["totals"]["new_bytes"].as_u64() < Some(1_000_000),
        "{again}"
    );
    let out = found(&host, &["--repair"]);
    assert!(
        out.contains("no target that can be read has it, nor has the spool"),
        "{out}"
    );
    assert!(out.contains("the next backup stores again"), "{out}");
    assert!(first.exists());
    let again = host.backup();
    assert!(
        again["totals"]["new_bytes"].as_u64() > Some(1_000_000),
        "{again}"
    );
    host.ok(&["verify", "latest", "--data"]);
    host.restore("latest", "out");
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
    // The older ones are still said to be incomplete.
    let out = found(&host, &["--data"]);
    assert!(out.contains("is damaged"), "{out}");
}

/// While the one that may have it does not answer, nothing is given up.
#[test]
fn nothing_is_given_up_while_another_target_is_away() {
    let host = on_two();
    fs::rename(host.path("other"), host.path("away")).unwrap();
    fs::remove_file(&tamper::objects(&host, Kind::DataArchive)[0]).unwrap();
    let out = found(&host, &["--repair", "--target", "folder"]);
    assert!(out.contains("run the repair again"), "{out}");
    fs::rename(host.path("away"), host.path("other")).unwrap();
    // One target is verified, the other one gives.
    let out = found(&host, &["--repair", "--target", "folder"]);
    assert!(out.contains("was brought from other"), "{out}");
    host.ok(&["verify", "--data"]);
}

/// A donor that is damaged itself is not believed, and spreads nothing.
#[test]
fn damage_is_not_spread() {
    let host = on_two();
    for kind in [Kind::DataArchive, Kind::Table] {
        let here = tamper::objects(&host, kind)[0].clone();
        let there = here.strip_prefix(host.path("repo")).unwrap();
        let there = host.path("other").join(there);
        fs::remove_file(&here).unwrap();
        flip(&there);
        let damaged = fs::read(&there).unwrap();
        let out = found(&host, &["--repair", "--target", "folder"]);
        assert!(out.contains("could not be repaired"), "{out}");
        assert!(!here.exists(), "{kind:?}");
        assert_eq!(fs::read(&there).unwrap(), damaged);
        flip(&there);
        found(&host, &["--repair"]);
        host.ok(&["verify"]);
    }
}

const OPENED: [&str; 6] = [
    "--identity",
    "key.txt",
    "--scratch",
    "scratch",
    "--data=1%",
    "latest",
];

#[test]
fn with_an_identity_a_snapshot_is_restored_to_nowhere() {
    let host = with_history();
    fs::create_dir(host.path("scratch")).unwrap();
    // A directory that forbids what removing it takes.
    fs::create_dir(host.data().join("locked")).unwrap();
    fs::write(host.data().join("locked/file"), "x").unwrap();
    let mut shut = fs::metadata(host.data().join("locked"))
        .unwrap()
        .permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut shut, 0o500);
    fs::set_permissions(host.data().join("locked"), shut).unwrap();
    host.backup();
    let out = host.ok(&[&["verify"], &OPENED[..]].concat());
    assert!(out.contains("restored and removed again: 5 files"), "{out}");
    assert_eq!(fs::read_dir(host.path("scratch")).unwrap().count(), 0);
    let report = host.json(&[&["verify", "1", "2"], &OPENED[..4]].concat());
    let restored = &report["targets"][0]["restored"];
    assert_eq!(restored[0]["files"], 2, "{report}");
    assert_eq!(restored[1]["files"], 3, "{report}");
    // Another key holder's identity: that says nothing of the snapshot.
    host.generate("stranger.txt");
    let out = found(
        &host,
        &["--identity", "stranger.txt", "--scratch", "scratch"],
    );
    assert!(out.contains("could not be restored for a test"), "{out}");
    // What only a restore meets is named as well.
    flip(&tamper::objects(&host, Kind::DataArchive)[0]);
    let out = found(&host, &OPENED[..4]);
    assert!(out.contains("does not give back what it should"), "{out}");
    assert_eq!(fs::read_dir(host.path("scratch")).unwrap().count(), 0);
}

/// Told to end, it leaves nothing decrypted behind.
#[test]
fn an_interrupted_restore_to_nowhere_leaves_nothing() {
    let host = with_history();
    fs::create_dir(host.path("scratch")).unwrap();
    let slow = ["verify", "--rate", "500kB"];
    let mut child = host
        .command(&[&slow[..], &OPENED[..4]].concat())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while !files(&host.path("scratch"))
        .iter()
        .any(|path| path.ends_with("data/f0"))
    {
        assert!(begun.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(fs::read_dir(host.path("scratch")).unwrap().count(), 0);
}
