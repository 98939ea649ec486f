//! `sync`: ciphertext from target to target.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::rsync::SshServer;
use crate::support::s3::{BUCKET, Hook, S3Server, error_answer};
use crate::support::tree::{describe, noise};

fn with_history(days: u64) -> Host {
    let host = Host::new();
    host.edit_config(
        "[retention]",
        "[pack]\narchive_size = \"1MiB\"\n\n[retention]",
    );
    for day in 0..days {
        fs::write(host.data().join(format!("f{day}")), noise(day, 400_000)).unwrap();
        host.backup();
    }
    host
}

fn restores(host: &Host, from: &[&str], to: &str) {
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", to];
    let signer = ["--signer", &host.signer];
    host.ok(&[&restore[..], &signer, from].concat());
    assert_eq!(
        describe(&host.path(to).join("data")),
        describe(&host.data())
    );
}

fn names(dir: PathBuf) -> Vec<String> {
    let below = |path: PathBuf| path.strip_prefix(&dir).unwrap().display().to_string();
    files(&dir).into_iter().map(below).collect()
}

#[test]
fn a_copy_is_the_same_and_restores_alone() {
    let host = with_history(3);
    let planned = host.json(&["sync", "folder", "./copy", "--dry-run"]);
    assert_eq!(planned["hosts"][0]["snapshots_to_copy"], 3);
    assert!(!host.path("copy").exists());
    let done = host.json(&["sync", "folder", "./copy"]);
    assert_eq!(done["hosts"][0]["copied"], 3);
    assert_eq!(names(host.path("copy/dalidou")), names(host.folder()));
    restores(&host, &["--from", "copy"], "out");
    let again = host.json(&["sync", "./repo", "./copy"]);
    assert_eq!(again["hosts"][0]["copied"], 0);
    assert_eq!(again["hosts"][0]["were_there"], 3);
    assert_eq!(again["hosts"][0]["bytes"], 0);
}

/// One host's folder is full of rubbish: the others are copied, and what is wrong with it is reported.
#[test]
fn a_host_that_cannot_be_copied_keeps_no_other_back() {
    let host = with_history(2);
    let good = files(&host.folder().join("manifests"));
    let name = good.iter().map(|path| path.file_name().unwrap().to_owned());
    let name = name.min().unwrap();
    let bad = host.path("repo/aaa/manifests");
    fs::create_dir_all(&bad).unwrap();
    fs::write(bad.join(&name), "rubbish").unwrap();
    fs::write(bad.join(&name).with_extension("json.sig"), "rubbish").unwrap();
    let (out, err) = host.exits(&["sync", "./repo", "./copy"], 3);
    assert!(out.contains("dalidou: 2 snapshots copied"), "{out}{err}");
    assert!(err.contains("failed: aaa: "), "{err}");
    let (_, after) = err.split_once("failed: aaa: ").unwrap();
    assert!(after.contains("next: "), "{err}");
    restores(&host, &["--from", "copy", "--host", "dalidou"], "out");
    let report = host.json_exits(&["sync", "./repo", "./copy"], &[3]);
    assert!(report["hosts"][0]["error"].is_string(), "{report}");
    assert_eq!(report["hosts"][1]["were_there"], 2);
    // Alone it is an error like any other.
    host.exits(&["sync", "./repo", "./copy", "--host", "aaa"], 1);
}

/// Receipts and tombstones are facts beside the snapshots: one that cannot be read is a word, no end.
#[test]
fn a_statement_that_cannot_be_read_keeps_nothing_back() {
    let host = with_history(1);
    let receipts = host.folder().join("receipts");
    fs::create_dir_all(&receipts).unwrap();
    let planted = fs::File::create(receipts.join("planted.json")).unwrap();
    planted.set_len(1 << 30).unwrap();
    let (out, err) = host.exits(&["sync", "./repo", "./copy"], 3);
    assert!(out.contains("1 snapshot copied"), "{out}{err}");
    assert!(err.contains("planted.json"), "{err}");
    restores(&host, &["--from", "copy"], "out");
}

/// Where every put fails because the other side is away, a few are enough to know.
#[test]
fn a_side_that_is_gone_is_not_asked_for_every_archive() {
    let host = with_history(1);
    for (name, bytes) in [("more", 40_000_000), ("last", 400_000)] {
        fs::write(host.data().join(name), noise(9, bytes)).unwrap();
        host.backup();
    }
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let hook: Hook = {
        let asked = Arc::clone(&asked);
        Arc::new(move |request| {
            let path = request.uri().path();
            let is_archive = request.method() == "PUT" && path.contains("/archives/");
            is_archive.then(|| {
                asked.lock().unwrap().insert(path.to_owned());
                error_answer(503, "SlowDown")
            })
        })
    };
    let server = S3Server::start_with(hook);
    let target = format!(
        "[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/x\"\nendpoint = \"{}\"\nretry = \"1s\"\n\n[retention]",
        server.endpoint()
    );
    host.edit_config("[retention]", &target);
    let output = sync_s3(&host, &server, &["sync", "folder", "s3"]);
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(
        err.contains("not tried: too many copies before it failed"),
        "{err}"
    );
    let (asked, all) = (
        asked.lock().unwrap().len(),
        files(&host.folder().join("archives")).len(),
    );
    assert!(asked <= 8 && all > 12, "{asked} of {all}");
    assert!(!server.bucket_dir().join("x/dalidou/manifests").exists());
}

fn sync_s3(host: &Host, server: &S3Server, arguments: &[&str]) -> Output {
    let mut command = host.command(arguments);
    server.output_of(&mut command)
}

/// A laptop pulls from where the server pushes to, and another machine gets it over ssh.
#[test]
fn it_goes_through_s3_and_ssh() {
    let (host, server, laptop) = (with_history(2), S3Server::start(), SshServer::start(""));
    let (s3, endpoint) = (format!("s3://{BUCKET}/seed"), server.endpoint());
    let there = ["sync", "./repo", &s3, "--to-endpoint", &endpoint];
    let output = sync_s3(&host, &server, &there);
    assert!(output.status.success(), "{}", texts(&output).1);
    let (url, ssh) = (laptop.url("/pulled"), laptop.ssh());
    let back = [
        "sync",
        &s3,
        &url,
        "--from-endpoint",
        &endpoint,
        "--ssh",
        &ssh,
    ];
    let output = sync_s3(&host, &server, &back);
    assert!(output.status.success(), "{}", texts(&output).1);
    assert_eq!(
        names(laptop.files().join("pulled/dalidou")),
        names(host.folder())
    );
    restores(&host, &["--from", &url, "--ssh", &ssh], "out");
}

#[test]
fn single_snapshots_can_be_chosen() {
    let host = with_history(3);
    let done = host.json(&["sync", "./repo", "./copy", "latest"]);
    assert_eq!(done["hosts"][0]["copied"], 1);
    let manifests = names(host.path("copy/dalidou/manifests"));
    assert_eq!(manifests.len(), 2, "{manifests:?}");
    // The others are known to it and are not there: the report says so.
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", "out"];
    let from = ["--from", "copy", "--signer", &host.signer];
    host.exits_any(&[&restore[..], &from].concat(), &[0, 3]);
    assert_eq!(
        describe(&host.path("out").join("data")),
        describe(&host.data())
    );
    host.exits(&["sync", "./repo", "./copy", "99"], 1);
    host.exits(&["sync", "./repo", "./copy", "nonesuch"], 2);
}

/// What is damaged is not spread; what is whole is.
#[test]
fn a_damaged_archive_is_named_and_keeps_only_its_snapshots_behind() {
    let host = with_history(1);
    let before = names(host.folder().join("archives"));
    fs::write(host.data().join("more"), noise(9, 400_000)).unwrap();
    host.backup();
    let after = names(host.folder().join("archives"));
    let new: Vec<&String> = after.iter().filter(|name| !before.contains(name)).collect();
    let path = host.folder().join("archives").join(new[0]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_, err) = host.exits(&["sync", "./repo", "./copy"], 3);
    let hash = new[0].rsplit('/').next().unwrap();
    assert!(err.contains(hash) && err.contains("damaged"), "{err}");
    assert_eq!(names(host.path("copy/dalidou/manifests")).len(), 2);
    assert!(!names(host.path("copy/dalidou/archives")).contains(new[0]));
}

/// A run that broke off goes on; what was lost over there comes back.
#[test]
fn what_is_missing_over_there_is_brought_again() {
    let host = with_history(2);
    host.ok(&["sync", "./repo", "./copy"]);
    let all = names(host.path("copy/dalidou"));
    let lost = |name: &&String| name.contains("archives/") || name.ends_with(".sig");
    for name in all.iter().filter(lost).step_by(2) {
        fs::remove_file(host.path("copy/dalidou").join(name)).unwrap();
    }
    let short = all.iter().find(|name| name.contains("tables/")).unwrap();
    fs::remove_file(host.path("copy/dalidou").join(short)).unwrap();
    host.ok(&["sync", "./repo", "./copy"]);
    assert_eq!(names(host.path("copy/dalidou")), all);
    restores(&host, &["--from", "copy"], "out");
}

/// What a killed run left is cleared by the next; what another one uses is not.
#[test]
fn what_was_on_its_way_when_a_run_was_killed_is_cleared() {
    use rustix::fs::{FlockOperation, flock};
    let host = with_history(1);
    let made = |name: &str, seconds_old: u64| {
        let dir = host.path("scratch").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("copy-1"), noise(1, 1000)).unwrap();
        let dir = fs::File::open(dir).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds_old);
        dir.set_modified(then).unwrap();
        dir
    };
    made("sealift-sync-0000000000000001", 120);
    made("sealift-sync-0000000000000002", 10);
    made("another's", 7200);
    let in_use = made("sealift-sync-0000000000000003", 7200);
    flock(&in_use, FlockOperation::LockExclusive).unwrap();
    host.ok(&["sync", "./repo", "./copy", "--scratch", "scratch"]);
    let left = names(host.path("scratch"));
    let expected = [
        "another's",
        "sealift-sync-0000000000000002",
        "sealift-sync-0000000000000003",
    ];
    assert_eq!(left, expected.map(|dir| format!("{dir}/copy-1")));
}

#[test]
fn what_cannot_be_done_is_said() {
    let host = with_history(1);
    let (_, err) = host.exits(&["sync", "nowhere", "./copy"], 2);
    assert!(err.contains("folder") && err.contains("./nowhere"), "{err}");
    let (_, err) = host.exits(&["sync", "./absent", "./copy"], 1);
    assert!(err.contains("absent"), "{err}");
    assert!(!host.path("copy").exists());
    let (_, err) = host.exits(&["sync", "./repo", "folder"], 2);
    assert!(err.contains("same"), "{err}");
    // A stranger's manifests are not spread under a pinned signer.
    let stranger = sealift::format::signature::Signer::generate("x")
        .unwrap()
        .fingerprint();
    host.exits(&["sync", "./repo", "./copy", "--signer", &stranger], 1);
}

/// One place, several hosts: who is well, who is late, whose archives are gone.
#[test]
fn a_fleet_is_seen_at_a_glance() {
    let (mut well, late) = (with_history(2), Host::new());
    well.clock = Some("2026-04-07T06:00:00Z".to_owned());
    late.edit_config("host = \"dalidou\"", "host = \"older\"");
    let schedule = "\n[schedule]\nbackup = \"0 6 * * *\"\n";
    fs::write(late.path("c.toml"), late.config() + schedule).unwrap();
    fs::write(late.data().join("f"), noise(1, 1000)).unwrap();
    let mut late = late;
    late.clock = Some("2026-04-01T06:00:00Z".to_owned());
    late.exits_any(&["backup"], &[0, 3]);
    let place = late.path("repo").display().to_string();
    well.ok(&["sync", "./repo", &place]);
    late.clock = Some("2026-04-07T07:00:00Z".to_owned());
    let (out, _) = late.exits(&["status", "--from", &place], 3);
    let line = |host: &str| {
        let found = out
            .lines()
            .find(|line| line.starts_with(&format!("{host} ")));
        found
            .unwrap_or_else(|| panic!("{host} is not in\n{out}"))
            .to_owned()
    };
    assert!(line("dalidou").ends_with(" ok"), "{out}");
    assert!(line("older").ends_with("ATTENTION"), "{out}");
    assert!(
        out.contains("older: STALE: the next snapshot was due by 2026-04-02 12:00 UTC"),
        "{out}"
    );
    for archive in files(&late.path("repo/dalidou/archives")) {
        fs::remove_file(archive).unwrap();
    }
    let fleet = late.json_exits(&["status", "--from", &place], &[3]);
    let hosts = fleet["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 2);
    assert!(
        hosts[0]["problems"].to_string().contains("missing"),
        "{fleet}"
    );
}
