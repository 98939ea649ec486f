//! A restored VM, a second machine under one name, a lost state directory, a clock set back, an
//! emptied target: each is recognised, and none ends in a wrong or missing byte.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::host::Host;
use crate::support::tree::{describe, noise};

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(done.success());
}

/// Writes a state of the tree that depends on `n`.
fn fill(host: &Host, n: u64) {
    fs::write(host.data().join("changing"), noise(n, 50_000)).unwrap();
    fs::write(
        host.data().join(format!("file-{n}")),
        noise(n + 1000, 9_000),
    )
    .unwrap();
}

fn fill_and_back_up(host: &Host, n: u64) -> Vec<String> {
    fill(host, n);
    host.backup();
    describe(&host.data())
}

fn assert_restores(host: &Host, snapshot: &str, state: &[String]) {
    let out = host.restore(snapshot, "out");
    assert_eq!(describe(&out.join("data")), state);
    fs::remove_dir_all(out).unwrap();
    let chain = host.remote_list();
    assert_eq!(chain["findings"].as_array().unwrap().len(), 0, "{chain}");
}

#[test]
fn a_lost_state_directory_costs_a_full_push_and_nothing_else() {
    let host = Host::new();
    let first = fill_and_back_up(&host, 1);
    fill_and_back_up(&host, 2);
    fs::remove_dir_all(host.path("c.state")).unwrap();
    fill(&host, 3);
    let report = host.backup();
    assert_eq!(report["sequence"], 3);
    assert!(
        report["notes"]
            .to_string()
            .contains("the state directory is new"),
        "{report}"
    );
    let third = describe(&host.data());
    assert_restores(&host, "latest", &third);
    assert_restores(&host, "1", &first);
    // From here on it is incremental again.
    let report = host.backup();
    assert!(
        report["new_archive_bytes"].as_u64().unwrap() < 16_000,
        "{report}"
    );
}

#[test]
fn a_damaged_catalog_is_replaced_and_told_of() {
    let host = Host::new();
    fill_and_back_up(&host, 1);
    fs::write(
        host.path("c.state/catalog.db"),
        b"SQLite format 3\0 and then nothing",
    )
    .unwrap();
    fill(&host, 2);
    let report = host.backup();
    assert!(
        report["notes"]
            .to_string()
            .contains("the catalog was damaged"),
        "{report}"
    );
    assert_restores(&host, "latest", &describe(&host.data()));
}

#[test]
fn a_machine_restored_from_an_image_continues_from_the_target() {
    let host = Host::new();
    fill_and_back_up(&host, 1);
    copy(&host.path("c.state"), &host.path("image"));
    let second = fill_and_back_up(&host, 2);
    fill_and_back_up(&host, 3);
    fs::remove_dir_all(host.path("c.state")).unwrap();
    copy(&host.path("image"), &host.path("c.state"));
    fill(&host, 4);
    let report = host.json_exits(&["backup"], &[3]);
    assert_eq!(report["sequence"], 4);
    assert!(
        report["warnings"]
            .to_string()
            .contains("restored from an image"),
        "{report}"
    );
    assert_restores(&host, "latest", &describe(&host.data()));
    assert_restores(&host, "2", &second);
    // Told once.
    assert_eq!(fill_and_back_up(&host, 5), describe(&host.data()));
    assert_restores(&host, "latest", &describe(&host.data()));
}

#[test]
fn an_image_with_an_unshipped_spool_does_not_fork_the_chain() {
    let host = Host::new();
    fill_and_back_up(&host, 1);
    // The target is away: the snapshot stays in the spool.
    fs::rename(host.path("repo"), host.path("away")).unwrap();
    fs::write(host.path("repo"), b"no directory").unwrap();
    fill(&host, 2);
    host.exits(&["backup"], 1);
    copy(&host.path("c.state"), &host.path("image"));
    fs::remove_file(host.path("repo")).unwrap();
    fs::rename(host.path("away"), host.path("repo")).unwrap();
    fill_and_back_up(&host, 3);
    fs::remove_dir_all(host.path("c.state")).unwrap();
    copy(&host.path("image"), &host.path("c.state"));
    fill(&host, 4);
    host.json_exits(&["backup"], &[0, 3]);
    assert_restores(&host, "latest", &describe(&host.data()));
    fill_and_back_up(&host, 5);
    assert_restores(&host, "latest", &describe(&host.data()));
}

#[test]
fn a_second_machine_is_stopped_until_it_adopts_the_name() {
    let mut host = Host::new();
    let first = fill_and_back_up(&host, 1);
    copy(&host.path("c.state"), &host.path("state-of-1"));
    host.machine = "machine-2".to_owned();
    for state_is_new in [false, true] {
        if state_is_new {
            fs::remove_dir_all(host.path("c.state")).unwrap();
        }
        fill(&host, 2);
        if !state_is_new {
            // A clone that has done nothing yet looks like the machine itself; its first push differs.
            continue;
        }
        let before = host.stored_bytes();
        let (_, err) = host.exits(&["backup"], 1);
        assert!(
            err.contains("another machine") && err.contains("adopt"),
            "{err}"
        );
        assert_eq!(host.stored_bytes(), before);
    }
    host.ok(&["adopt", "--yes"]);
    let second = fill_and_back_up(&host, 2);
    assert_restores(&host, "latest", &second);
    assert_restores(&host, "1", &first);
    // The machine that was replaced wakes up: it is stopped now.
    host.machine = "machine-1".to_owned();
    fs::rename(host.path("c.state"), host.path("state-of-2")).unwrap();
    fs::rename(host.path("state-of-1"), host.path("c.state")).unwrap();
    fill(&host, 3);
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("another machine"), "{err}");
    assert_restores(&host, "latest", &second);
}

#[test]
fn two_machines_that_publish_at_once_are_a_fork_and_both_are_told() {
    let mut host = Host::new();
    fill_and_back_up(&host, 1);
    // Machine 2 pushes its second snapshot to a copy of the target; then the two copies meet.
    copy(&host.path("repo"), &host.path("repo-of-1"));
    copy(&host.path("c.state"), &host.path("state-of-1"));
    host.machine = "machine-2".to_owned();
    fill_and_back_up(&host, 2);
    let second = describe(&host.data());
    fs::rename(host.path("repo"), host.path("repo-of-2")).unwrap();
    fs::rename(host.path("c.state"), host.path("state-of-2")).unwrap();
    fs::rename(host.path("repo-of-1"), host.path("repo")).unwrap();
    fs::rename(host.path("state-of-1"), host.path("c.state")).unwrap();
    host.machine = "machine-1".to_owned();
    fill_and_back_up(&host, 3);
    let third = describe(&host.data());
    copy(&host.path("repo-of-2/."), &host.path("repo"));

    let refused = host.refused("latest", "out");
    assert!(
        refused.contains("forked") || refused.contains("ambiguous"),
        "{refused}"
    );
    host.recover_refused("latest", "by-hand");
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("another machine"), "{err}");
    // Each of the two is there in full, and can be chosen.
    let rows = host.remote_list_any();
    let names: Vec<String> = rows["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["sequence"] == 2)
        .map(|row| {
            row["manifest"]
                .as_str()
                .unwrap()
                .rsplit_once('-')
                .unwrap()
                .1
                .to_owned()
        })
        .collect();
    let mut states: Vec<Vec<String>> = names
        .iter()
        .map(|name| describe(&host.restore(name, &format!("out-{name}")).join("data")))
        .collect();
    states.sort();
    let mut expected = vec![second, third];
    expected.sort();
    assert_eq!(states, expected);
    // So on a fresh machine that has pinned no signer: what has a name of its own is not ambiguous.
    let fresh = |command: &[&str]| {
        let from = ["--from", "repo", "--accept-signer", "--identity", "key.txt"];
        host.exits_any(&[command, &from].concat(), &[0, 3]);
    };
    for name in names.iter().map(String::as_str).chain(["1"]) {
        let to = format!("fresh-{name}");
        fresh(&["restore", name, "--to", &to]);
        fresh(&["ls", name]);
        fresh(&["verify", name]);
    }
    host.exits(&["list", "--from", "repo", "--accept-signer"], 3);
    let latest = [
        "restore",
        "--from",
        "repo",
        "--accept-signer",
        "--identity",
        "key.txt",
    ];
    let (_, err) = host.exits(&[&latest[..], &["--to", "fresh-latest"]].concat(), 1);
    assert!(err.contains("forked"), "{err}");
    // `adopt` joins the two heads, and the chain goes on.
    host.ok(&["adopt", "--yes"]);
    fill(&host, 4);
    host.json_exits(&["backup"], &[0, 3]);
    let out = host.restore("latest", "after");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn latest_is_the_highest_sequence_whatever_the_clock_says() {
    let mut host = Host::new();
    host.clock = Some("2026-04-07T06:00:00Z".to_owned());
    fill_and_back_up(&host, 1);
    host.clock = Some("2025-01-01T00:00:00Z".to_owned());
    fill(&host, 2);
    let report = host.json_exits(&["backup"], &[3]);
    assert!(
        report["warnings"]
            .to_string()
            .contains("the clock is behind"),
        "{report}"
    );
    let second = describe(&host.data());
    assert_restores(&host, "latest", &second);
    let out = host.recover("latest", "by-hand");
    assert_eq!(describe(&out.join("data")), second);
}

#[test]
fn an_emptied_target_gets_everything_again_and_its_owner_is_told() {
    let host = Host::new();
    fill_and_back_up(&host, 1);
    fs::remove_dir_all(host.path("repo")).unwrap();
    // It may as well be a disk that is not mounted: nothing is written where it should be.
    for made in ["repo", "repo/dalidou"] {
        let (_, err) = host.exits(&["backup"], 1);
        assert!(!host.folder().exists());
        assert!(err.contains("no target has it"), "{err}");
        let (out, _) = host.exits(&["status"], 3);
        assert!(
            out.contains("there is no folder") || made == "repo/dalidou",
            "{out}"
        );
        fs::create_dir(host.path(made)).unwrap();
    }
    let report = host.json_exits(&["backup"], &[3]);
    assert!(
        report["warnings"].to_string().contains("no longer has"),
        "{report}"
    );
    // The two that were packed meanwhile waited in the spool; no sequence is used twice.
    assert_eq!(report["sequence"], 4);
    // What those two leaned on is lost with the target, so they are given up; the next one knows it.
    host.json_exits(&["backup"], &[0, 3]);
    assert_restores(&host, "latest", &describe(&host.data()));
    host.backup();
}

#[test]
fn a_lost_archive_is_stored_again() {
    let host = Host::new();
    fill_and_back_up(&host, 1);
    fill_and_back_up(&host, 2);
    for archive in crate::support::files::files(&host.folder().join("archives")) {
        fs::remove_file(archive).unwrap();
    }
    let report = host.json_exits(&["backup"], &[3]);
    assert!(
        report["warnings"]
            .to_string()
            .contains("lost 4 of the archives"),
        "{report}"
    );
    // Told once.
    host.backup();
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

#[test]
fn two_runs_at_once_do_not_work_on_one_state() {
    let host = Host::new();
    fs::write(host.data().join("big"), noise(1, 60_000_000)).unwrap();
    let mut first = host.command(&["backup"]).spawn().unwrap();
    let lock = host.path("c.state/lock");
    while !lock.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    let second = host.run(&["backup"]);
    let (_, err) = crate::support::host::texts(&second);
    let still_running = first.try_wait().unwrap().is_none();
    assert!(first.wait().unwrap().success());
    if still_running {
        assert!(err.contains("another sealift is at work"), "{err}");
        assert_eq!(second.status.code(), Some(1));
    }
}

/// docs/operations.md, "A whole new machine": the old signer is lost with the old one.
#[test]
fn a_new_machine_with_a_new_signer_takes_over() {
    let mut host = Host::new();
    let first = fill_and_back_up(&host, 1);
    // What the key holder kept; everything else burns.
    let allowed = fs::read(host.path("allowed_signers")).unwrap();
    for name in ["c.toml", "c.signer", "c.signer.pub", "allowed_signers"] {
        fs::remove_file(host.path(name)).unwrap();
    }
    fs::remove_dir_all(host.path("c.state")).unwrap();
    host.machine = "machine-2".to_owned();
    fs::write(host.path("allowed_signers"), allowed).unwrap();
    let recipient = host.recipient.clone();
    let init = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        &recipient,
        "--target",
        "repo",
        "--tree",
        "data",
    ];
    let said = host.json_exits(&init, &[3]);
    assert!(said.to_string().contains("sealift adopt"), "{said}");
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("another machine"), "{err}");
    host.ok(&["adopt", "--yes"]);
    fill(&host, 2);
    let report = host.backup();
    assert_eq!(report["sequence"], 2);
    // A reader who pins both signers reads old and new.
    host.signer = host.path("allowed_signers").display().to_string();
    assert_restores(&host, "latest", &describe(&host.data()));
    assert_restores(&host, "1", &first);
    let out = host.recover("latest", "by-hand");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

/// keys/README.md, "Rotate the signer": the old one introduces the new one.
#[test]
fn a_rotated_signer_is_followed_by_who_pinned_the_old_one() {
    let host = Host::new();
    fill_and_back_up(&host, 1);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "second", "-f"])
        .arg(host.path("c.signer-2"))
        .status()
        .unwrap();
    assert!(made.success());
    let signer = "signer = \"c.signer\"";
    let introduced = format!("{signer}\nnext_signer = \"c.signer-2.pub\"");
    host.edit_config(signer, &introduced);
    fill_and_back_up(&host, 2);
    host.edit_config(&introduced, "signer = \"c.signer-2\"");
    let third = fill_and_back_up(&host, 3);
    // `host.signer` is the old fingerprint.
    assert_restores(&host, "latest", &third);
    let out = host.recover("latest", "by-hand");
    assert_eq!(describe(&out.join("data")), third);
}
