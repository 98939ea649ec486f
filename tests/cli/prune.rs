//! `prune`: the right snapshots stay and restore, archives go when nothing can name them any more.

mod forget;
mod local;
mod tags;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};

use crate::support::files::files;
use crate::support::host::{Host, SEALIFT};
use crate::support::s3::{BUCKET, Hook, S3Server, error_answer};
use crate::support::tree::{describe, noise};

fn day(number: i64) -> DateTime<Utc> {
    let first: DateTime<Utc> = "2026-03-01T06:00:00Z".parse().unwrap();
    first + Duration::days(number)
}

pub fn set_clock(host: &mut Host, number: i64) {
    host.clock = Some(day(number).to_rfc3339());
}

/// A file of its own for each day, and one that every day changes.
fn change(host: &Host, number: i64) {
    fs::write(host.data().join("today"), noise(number as u64, 30_000)).unwrap();
    fs::write(host.data().join("number"), number.to_string()).unwrap();
}

fn backup(host: &mut Host, number: i64) -> serde_json::Value {
    set_clock(host, number);
    change(host, number);
    host.backup()
}

fn with_days(days: i64) -> Host {
    let mut host = Host::new();
    (0..days).for_each(|number| drop(backup(&mut host, number)));
    host
}

fn stamps(host: &Host) -> Vec<String> {
    let list = host.remote_list();
    let snapshots = list["snapshots"].as_array().unwrap();
    let stamp = |one: &serde_json::Value| one["stamp"].as_str().unwrap()[..8].to_owned();
    snapshots.iter().map(stamp).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    if !dir.exists() {
        return BTreeSet::new();
    }
    let name = |path: std::path::PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files(dir).into_iter().map(name).collect()
}

fn archives(host: &Host) -> BTreeSet<String> {
    names(&host.folder().join("archives"))
}

#[test]
fn sixty_days_of_backups_pruned_every_day() {
    let mut host = Host::new();
    let (mut most, mut all_freed) = (0, 0);
    for number in 0..60 {
        let report = backup(&mut host, number);
        assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{report}");
        let done = host.json(&["prune"]);
        let freed = done["targets"][0]["done"]["freed_archives"]
            .as_u64()
            .unwrap();
        // What was marked yesterday goes today: today's manifest took notice.
        assert!(number > 8 || freed == 0, "{done}");
        all_freed += freed;
        most = most.max(archives(&host).len());
    }
    // The last day is 2026-04-29, a Wednesday.
    assert_eq!(
        stamps(&host),
        [
            "20260301", "20260401", "20260405", "20260412", "20260419", "20260423", "20260424",
            "20260425", "20260426", "20260427", "20260428", "20260429"
        ]
    );
    assert!(
        most < 45 && all_freed > 80,
        "{most} archives at most, {all_freed} freed"
    );
    assert!(!names(&host.folder().join("tombstones")).is_empty());
    host.ok(&["verify", "--data"]);
    host.ok(&["status"]);
    for snapshot in ["20260301T060000Z", "20260405T060000Z", "latest"] {
        let out = host.restore(snapshot, snapshot);
        let number = fs::read_to_string(out.join("data/number")).unwrap();
        let number: u64 = number.parse().unwrap();
        assert_eq!(
            fs::read(out.join("data/today")).unwrap(),
            noise(number, 30_000)
        );
    }
    let by_hand = host.recover("20260401T060000Z", "by-hand");
    assert_eq!(
        fs::read_to_string(by_hand.join("data/number")).unwrap(),
        "31"
    );
}

/// A prune, a push that takes notice, a prune: then all that only the forgotten needed is gone.
#[test]
fn archives_go_after_a_push_took_notice_and_not_before() {
    let mut host = with_days(9);
    let before = archives(&host);
    let done = host.json(&["prune"]);
    let done = &done["targets"][0]["done"];
    assert_eq!(done["forgotten"].as_array().unwrap().len(), 1, "{done}");
    let marked = done["marked_archives"].as_u64().unwrap();
    assert!(marked > 0 && done["freed_archives"] == 0, "{done}");
    host.json(&["prune"]);
    assert_eq!(archives(&host), before, "no backup took notice yet");
    let report = backup(&mut host, 9);
    assert_eq!(report["complete"], true, "{report}");
    let done = host.json(&["prune"]);
    assert_eq!(
        done["targets"][0]["done"]["freed_archives"], marked,
        "{done}"
    );
    let left = before.intersection(&archives(&host)).count() as u64;
    assert_eq!(left, before.len() as u64 - marked);
    let report = backup(&mut host, 10);
    assert_eq!(report["complete"], true, "{report}");
    host.ok(&["verify", "--data"]);
}

/// Content that comes back after its archive was marked is stored again, not leaned on.
#[test]
fn what_is_marked_is_not_leaned_on() {
    let mut host = with_days(9);
    host.ok(&["prune"]);
    set_clock(&mut host, 9);
    // The second day's: its archive is marked.
    fs::write(host.data().join("again"), noise(1, 30_000)).unwrap();
    let report = host.backup();
    let new_bytes = report["totals"]["new_bytes"].as_u64().unwrap();
    assert!(new_bytes >= 30_000, "{report}");
    host.ok(&["prune"]);
    host.ok(&["verify", "--data"]);
    let out = host.restore("latest", "out");
    assert_eq!(describe(&out.join("data")), describe(&host.data()));
}

/// A push that planned before the mark, and publishes after it: what it names stays.
#[test]
fn a_push_that_knew_of_no_mark_keeps_what_it_names() {
    let mut host = Host::new();
    host.edit_config(
        "\n# What stays",
        "\n[[target]]\nname = \"second\"\nurl = \"file://@/second\"\n\n# What stays",
    );
    let dir = host.temp.path().display().to_string();
    host.edit_config("file://@", &format!("file://{dir}"));
    let (second, away) = (host.path("second"), host.path("away"));
    fs::create_dir(&second).unwrap();
    for number in 0..9 {
        backup(&mut host, number);
    }
    // The second target is away; what this push makes leans on an archive of day 1.
    fs::rename(&second, &away).unwrap();
    set_clock(&mut host, 9);
    fs::write(host.data().join("again"), noise(1, 30_000)).unwrap();
    let report = host.json_exits(&["backup"], &[3]);
    let new_bytes = report["totals"]["new_bytes"].as_u64().unwrap();
    assert!(new_bytes < 1000, "{report}");
    // An operator prunes it meanwhile, elsewhere, and knows nothing of that push.
    let away_url = away.display().to_string();
    let elsewhere = [
        "prune",
        "--from",
        &away_url,
        "--signer",
        &host.signer,
        "--policy",
        "daily=1",
        "--yes",
    ];
    host.ok(&elsewhere);
    host.ok(&elsewhere);
    assert_eq!(
        names(&away.join("dalidou/marks")).len(),
        2,
        "a mark and its signature"
    );
    fs::rename(&away, &second).unwrap();
    backup(&mut host, 10);
    let url = second.display().to_string();
    let policy = [
        "prune",
        "--from",
        &url,
        "--signer",
        &host.signer,
        "--policy",
        "daily=9",
        "--yes",
    ];
    host.ok(&policy);
    let third = ["verify", "--from", &url, "--signer", &host.signer, "--data"];
    host.ok(&third);
    for snapshot in ["20260310T060000Z", "latest"] {
        let arguments = [
            "restore",
            snapshot,
            "--from",
            &url,
            "--signer",
            &host.signer,
            "--identity",
            "key.txt",
            "--to",
            snapshot,
        ];
        host.ok(&arguments);
        let again = host.path(snapshot).join("data/again");
        assert_eq!(fs::read(again).unwrap(), noise(1, 30_000));
    }
    // The first target was never pruned.
    host.ok(&["verify", "--data"]);
}

#[test]
fn a_dry_run_shows_reasons_and_deletes_nothing() {
    let host = with_days(9);
    let before = files(&host.folder());
    let table = host.ok(&["prune", "--dry-run"]);
    let line = |stamp: &str| {
        let line = table.lines().find(|line| line.starts_with(stamp));
        line.unwrap_or_else(|| panic!("{stamp} is not in\n{table}"))
            .to_owned()
    };
    assert!(line("20260302T").ends_with("forget"), "{table}");
    assert!(line("20260301T").ends_with("weekly, monthly"), "{table}");
    assert!(line("20260309T").ends_with("newest, daily"), "{table}");
    assert!(table.contains("would delete 1 of 9 snapshots"), "{table}");
    assert_eq!(files(&host.folder()), before);
}

#[test]
fn a_dry_run_on_several_targets_is_short() {
    let mut host = Host::with_init(&["--tree", "data", "--target", "second"]);
    (0..4).for_each(|number| drop(backup(&mut host, number)));
    let dry = ["prune", "--dry-run", "--policy", "last=1", "--yes"];
    let (brief, note) = host.exits(&dry, 0);
    let lines: Vec<&str> = brief.lines().collect();
    assert_eq!(lines.len(), 2, "{brief}");
    for line in lines {
        let range = ": would delete 3 of 4 snapshots, 20260301T060000Z to 20260303T060000Z";
        assert!(line.contains(range), "{brief}");
    }
    assert!(note.contains("--verbose"), "{note}");
    let full = host.ok(&[&dry[..], &["--verbose"]].concat());
    let rows = full.lines().filter(|line| line.starts_with("2026030"));
    assert_eq!(rows.count(), 8, "{full}");
    let one = host.ok(&[&dry[..], &["--target", "folder"]].concat());
    assert!(one.contains("20260301T060000Z  1"), "{one}");
    let nothing = host.ok(&["prune", "--dry-run", "--policy", "last=9"]);
    assert!(
        nothing
            .lines()
            .all(|line| line.ends_with("all of 4 snapshots stay")),
        "{nothing}"
    );
}

#[test]
fn an_outsized_deletion_and_a_wrong_clock_are_refused() {
    let mut host = with_days(5);
    let before = files(&host.folder());
    let few = ["prune", "--policy", "last=1"];
    let (_, err) = host.exits(&few, 1);
    assert!(err.contains("4 of 5") && err.contains("--yes"), "{err}");
    set_clock(&mut host, -30);
    let (_, err) = host.exits(&["prune", "--policy", "last=1", "--yes"], 1);
    assert!(err.contains("clock"), "{err}");
    assert_eq!(files(&host.folder()), before);
    set_clock(&mut host, 5);
    host.ok(&["pin", "20260302T060000Z"]);
    assert_eq!(host.ok(&["pin", "--list"]).trim(), "20260302T060000Z");
    host.ok(&["prune", "--policy", "last=1", "--yes"]);
    assert_eq!(stamps(&host), ["20260302", "20260305"]);
    host.ok(&["pin", "--remove", "20260302T060000Z"]);
    host.exits(&["pin", "--remove", "20260302T060000Z"], 1);
    host.ok(&["prune", "--policy", "last=1"]);
    assert_eq!(stamps(&host), ["20260305"]);
}

/// A host that is gone follows no mark.
#[test]
fn of_a_host_that_is_gone_archives_go_at_once() {
    let host = with_days(5);
    let gone = ["prune", "--policy", "last=1", "--yes", "--gone"];
    host.ok(&gone);
    let before = archives(&host).len();
    host.ok(&gone);
    assert!(archives(&host).len() < before);
    assert!(names(&host.folder().join("marks")).is_empty());
    host.ok(&["verify", "--data"]);
}

/// Whatever step it dies at, the next run ends it.
#[test]
fn a_prune_that_died_is_ended_by_the_next() {
    let mut host = with_days(9);
    let whole = host.path("whole");
    copy(&host.folder(), &whole);
    host.ok(&["prune"]);
    let tombstones = host.path("tombstones");
    copy(&host.folder().join("tombstones"), &tombstones);
    let marks = host.path("marks");
    copy(&host.folder().join("marks"), &marks);
    let gone = "00000002-20260302T060000Z";
    let of_gone = |dir: &Path| {
        let all = files(&dir.join("manifests")).into_iter();
        all.filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(gone)
        })
        .collect::<Vec<_>>()
    };
    let kept = stamps(&host);
    // 0: only the mark; 1: the tombstone too; 2: the manifest is gone, its signature is not.
    for died_after in 0..3 {
        fs::remove_dir_all(host.folder()).unwrap();
        copy(&whole, &host.folder());
        copy(&marks, &host.folder().join("marks"));
        if died_after > 0 {
            copy(&tombstones, &host.folder().join("tombstones"));
        }
        if died_after > 1 {
            let manifest = of_gone(&host.folder());
            fs::remove_file(
                manifest
                    .iter()
                    .find(|p| p.extension().unwrap() == "json")
                    .unwrap(),
            )
            .unwrap();
        }
        // Readers see nothing strange meanwhile.
        host.ok(&["verify"]);
        host.ok(&["prune"]);
        assert_eq!(stamps(&host), kept);
        assert!(of_gone(&host.folder()).is_empty());
        assert_eq!(names(&host.folder().join("tombstones")).len(), 2);
        assert_eq!(
            names(&host.folder().join("marks")).len(),
            2,
            "a mark and its signature"
        );
    }
    let report = backup(&mut host, 9);
    assert_eq!(report["complete"], true, "{report}");
    host.ok(&["prune"]);
    host.ok(&["verify", "--data"]);
}

/// One that died between archives and the pages that name them leaves no page behind.
#[test]
fn pages_go_though_their_archives_are_gone_already() {
    let mut host = with_days(9);
    host.ok(&["prune"]);
    backup(&mut host, 9);
    let whole = host.path("whole");
    copy(&host.folder(), &whole);
    let before = archives(&host);
    host.ok(&["prune"]);
    let after = archives(&host);
    let freed: Vec<&String> = before.difference(&after).collect();
    let pages = names(&host.folder().join("tables"));
    assert!(!freed.is_empty() && pages.len() < names(&whole.join("tables")).len());
    fs::remove_dir_all(host.folder()).unwrap();
    copy(&whole, &host.folder());
    for archive in freed {
        let key = format!("archives/{}/{archive}", &archive[..2]);
        fs::remove_file(host.folder().join(key)).unwrap();
    }
    host.ok(&["prune"]);
    assert_eq!(names(&host.folder().join("tables")), pages);
    host.ok(&["verify", "--data"]);
}

/// The same where a push came in between: its manifest follows the mark of what is still named.
#[test]
fn a_push_between_the_mark_and_the_deletion_is_no_harm() {
    let mut host = with_days(9);
    let whole = host.path("whole");
    copy(&host.folder(), &whole);
    host.ok(&["prune"]);
    copy(&whole.join("manifests"), &host.folder().join("manifests"));
    backup(&mut host, 9);
    for number in 10..12 {
        host.ok(&["prune"]);
        host.ok(&["verify", "--data"]);
        backup(&mut host, number);
    }
    host.ok(&["prune"]);
    assert_eq!(stamps(&host).len(), 8, "{:?}", stamps(&host));
    host.ok(&["verify", "--data"]);
}

/// What is taken away without a tombstone is still a finding.
#[test]
fn a_forged_tombstone_silences_nothing() {
    let mut host = with_days(3);
    // From elsewhere: what this host pruned itself it remembers.
    let signer = host.signer.clone();
    let elsewhere = [
        "--from",
        "repo",
        "--signer",
        &signer,
        "--sign-with",
        "c.signer",
    ];
    let prune = [&["prune", "--policy", "last=2"][..], &elsewhere].concat();
    let mut without_config = Command::new(SEALIFT);
    without_config.args(prune).current_dir(host.temp.path());
    without_config
        .env("HOME", host.temp.path())
        .env_remove("SEALIFT_CONFIG");
    without_config.env("SEALIFT_CLOCK", host.clock.as_deref().unwrap());
    assert!(without_config.status().unwrap().success());
    host.ok(&["verify"]);
    let tombstones = host.folder().join("tombstones");
    for path in files(&tombstones) {
        let text = fs::read(&path).unwrap();
        fs::write(&path, [&text[..text.len() - 9], b"xxxxxxxxx"].concat()).unwrap();
    }
    let (out, _) = host.exits(&["verify"], 3);
    assert!(
        out.contains("20260301T060000Z") && out.contains("missing"),
        "{out}"
    );
    set_clock(&mut host, 4);
    let (_, err) = host.exits(&["backup"], 3);
    assert!(err.contains("no longer has 1 of the snapshots"), "{err}");
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

/// Credentials that may not delete: reported, not fought.
#[test]
fn what_may_not_be_deleted_is_left_and_told_of() {
    let hook: Hook = Arc::new(|request| match request.method().as_str() {
        "DELETE" => Some(error_answer(403, "AccessDenied")),
        _ => None,
    });
    let server = S3Server::start_with(hook);
    let host = with_days(4);
    let (s3, endpoint) = (format!("s3://{BUCKET}/x"), server.endpoint());
    let run = |arguments: &[&str]| {
        let mut command = host.command(arguments);
        server.output_of(&mut command)
    };
    let there = run(&["sync", "./repo", &s3, "--to-endpoint", &endpoint]);
    assert!(there.status.success());
    let at = [
        "--from",
        &s3,
        "--endpoint",
        &endpoint,
        "--signer",
        &host.signer,
    ];
    let prune = [&["prune", "--policy", "last=2"][..], &at].concat();
    for _ in 0..2 {
        let output = run(&prune);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{err}");
        assert!(
            err.contains("not deleted") && err.contains("00000001-"),
            "{err}"
        );
    }
    let verified = run(&[&["verify", "--data"][..], &at].concat());
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

/// What was pruned does not come back by itself, and nothing is built on what is about to go.
#[test]
fn a_copy_keeps_its_own_retention() {
    let mut host = with_days(9);
    host.ok(&["sync", "./repo", "./copy"]);
    let signer = host.signer.clone();
    let at = ["--from", "copy", "--signer", &signer];
    let prune = [&["prune", "--policy", "last=2", "--yes"][..], &at].concat();
    host.ok(&prune);
    let again = host.json(&["sync", "./repo", "./copy"]);
    assert_eq!(again["hosts"][0]["copied"], 0, "{again}");
    let asked = ["sync", "./repo", "./copy", "20260303T060000Z"];
    let (_, err) = host.exits(&asked, 1);
    assert!(err.contains("marked to be deleted"), "{err}");
    set_clock(&mut host, 9);
    change(&host, 9);
    host.backup();
    // The copy's marks are none of the host's business; its owner says so.
    host.ok(&["sync", "./repo", "./copy"]);
    host.ok(&[&prune[..], &["--gone"]].concat());
    host.ok(&[&prune[..], &["--gone"]].concat());
    host.ok(&asked);
    host.ok(&[
        &["verify", "--data"][..],
        &["--from", "copy", "--signer", &host.signer],
    ]
    .concat());
}

/// Another machine's key: believed if it is listed for that, else nothing is deleted by it.
#[test]
fn a_key_of_its_own_prunes_from_elsewhere() {
    let mut host = with_days(9);
    let pruner = sealift::format::signature::Signer::generate("pruner").unwrap();
    pruner.save(&host.path("pruner")).unwrap();
    let from = ["--from", "repo", "--signer", "allowed_signers"];
    let prune = [
        "prune",
        "--policy",
        "daily=7,weekly=4",
        "--sign-with",
        "pruner",
    ];
    let prune = [&prune[..], &from].concat();
    let before = files(&host.folder());
    let (_, err) = host.exits(&prune, 1);
    assert!(err.contains("sealift-prune"), "{err}");
    assert_eq!(files(&host.folder()), before);
    let listed = fs::read_to_string(host.path("allowed_signers")).unwrap();
    let line = format!(
        "dalidou namespaces=\"sealift-prune\" {}\n",
        pruner.public_line()
    );
    fs::write(host.path("allowed_signers"), format!("{listed}{line}")).unwrap();
    host.ok(&prune);
    assert_eq!(stamps_any(&host).len(), 8);
    host.ok(&[&["verify"][..], &from].concat());
    // The host believes it too, and takes notice.
    let report = backup(&mut host, 9);
    assert_eq!(report["complete"], true, "{report}");
    let done = host.json(&prune);
    assert!(
        done["targets"][0]["done"]["freed_archives"]
            .as_u64()
            .unwrap()
            > 0,
        "{done}"
    );
    host.ok(&[&["verify", "--data"][..], &from].concat());
}

fn stamps_any(host: &Host) -> Vec<serde_json::Value> {
    host.remote_list_any()["snapshots"]
        .as_array()
        .unwrap()
        .clone()
}

/// Killed at any moment, at most what was to go is gone, and the next run ends it.
#[test]
fn a_prune_killed_at_any_moment_loses_nothing() {
    let mut host = with_days(9);
    for (round, number) in (9..21).enumerate() {
        let mut running = host
            .command(&["prune", "--policy", "daily=3"])
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis((round as u64 * 13) % 60));
        running.kill().unwrap();
        running.wait().unwrap();
        host.ok(&["verify"]);
        let report = backup(&mut host, number);
        assert_eq!(report["complete"], true, "{report}");
    }
    for _ in 0..2 {
        host.ok(&["prune", "--policy", "daily=3", "--yes"]);
        assert_eq!(stamps(&host), ["20260319", "20260320", "20260321"]);
        host.ok(&["verify", "--data"]);
    }
    let out = host.restore("20260319T060000Z", "out");
    assert_eq!(fs::read_to_string(out.join("data/number")).unwrap(), "18");
}

fn prunes_its_target(host: &Host) {
    host.edit_config("name = \"folder\"\n", "name = \"folder\"\nprune = true\n");
}

/// What a host does that may delete on a target: all of it in one command a day.
#[test]
fn backup_prunes_the_targets_that_say_so() {
    let mut host = Host::new();
    prunes_its_target(&host);
    let mut freed = 0;
    for number in 0..40 {
        let report = backup(&mut host, number);
        let notes = report["notes"].to_string();
        freed += u64::from(notes.contains("older snapshot forgotten"));
        assert_eq!(report["warnings"].as_array().unwrap().len(), 0, "{report}");
        assert!(archives(&host).len() < 60, "{number}");
    }
    assert!(freed > 20, "{freed}");
    // The last day is 2026-04-09, a Thursday.
    assert_eq!(
        stamps(&host),
        [
            "20260301", "20260315", "20260322", "20260329", "20260401", "20260403", "20260404",
            "20260405", "20260406", "20260407", "20260408", "20260409"
        ]
    );
    // A second one of today is no mistake: neither of them goes.
    backup(&mut host, 39);
    let list = host.remote_list();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 13, "{list}");
    host.ok(&["verify", "--data"]);
    host.ok(&["prune", "--dry-run"]);
}

#[test]
fn a_first_time_in_a_backup_must_be_confirmed_by_hand() {
    let mut host = with_days(40);
    prunes_its_target(&host);
    set_clock(&mut host, 40);
    let (out, err) = host.exits(&["backup"], 3);
    let said = out + &err;
    assert!(said.contains("retention could not be applied on"), "{said}");
    assert!(said.contains("more than half"), "{said}");
    assert_eq!(stamps(&host).len(), 41);
    host.ok(&["prune", "--yes"]);
    set_clock(&mut host, 41);
    host.ok(&["backup"]);
    assert!(stamps(&host).len() < 16);
}

/// Who owns the host says of today's snapshots that they are of last week, so that retention deletes the true ones.
#[test]
fn a_flood_of_forged_stamps_displaces_nothing() {
    let mut host = with_days(7);
    let mut true_ones: Vec<std::path::PathBuf> = Vec::new();
    let manifests = |host: &Host| files(&host.folder().join("manifests"));
    for number in 0..7 {
        let stamp = day(number).format("%Y%m%d").to_string();
        for path in manifests(&host) {
            if path.to_string_lossy().contains(&stamp) {
                let time = std::time::SystemTime::from(day(number));
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_modified(time).unwrap();
                true_ones.push(path);
            }
        }
    }
    for number in 0..7 {
        host.clock = Some((day(number) + Duration::hours(9)).to_rfc3339());
        change(&host, 100 + number);
        host.exits_any(&["backup"], &[0, 3]);
    }
    backup(&mut host, 7);
    host.ok(&["prune", "--policy", "daily=8"]);
    let left: BTreeSet<_> = manifests(&host).into_iter().collect();
    for path in &true_ones {
        assert!(left.contains(path), "{} is gone", path.display());
    }
}

/// Of the newest an archive is missing: the one before it is all that restores, whatever the policy says.
#[test]
fn the_newest_that_restores_stays() {
    let mut host = with_days(3);
    let before = archives(&host);
    backup(&mut host, 3);
    let newest: Vec<_> = files(&host.folder().join("archives"))
        .into_iter()
        .filter(|path| !before.contains(&path.file_name().unwrap().to_string_lossy().into_owned()))
        .collect();
    fs::remove_file(&newest[0]).unwrap();
    let shown = host.ok(&["prune", "--dry-run", "--policy", "last=1", "--yes"]);
    assert!(shown.contains("newest complete one"), "{shown}");
    host.ok(&["prune", "--policy", "last=1", "--yes"]);
    let list = host.remote_list_any();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 2, "{list}");
    let out = host.restore("20260303T060000Z", "out");
    assert_eq!(fs::read_to_string(out.join("data/number")).unwrap(), "2");
}
