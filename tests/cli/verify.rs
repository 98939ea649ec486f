//! `verify`: whatever is wrong with what a target stores is found, at the price it takes to find it.

mod repair;

use std::fs;
use std::path::{Path, PathBuf};

use sealift::format::manifest::TablePage;
use sealift::state::catalog::Catalog;

use crate::restore::tamper::{self, Action, Kind};
use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tree::noise;

pub fn with_history() -> Host {
    let host = Host::new();
    host.edit_config(
        "[retention]",
        "[pack]\narchive_size = \"1MiB\"\n\n[retention]",
    );
    for day in 0..3 {
        fs::write(host.data().join(format!("f{day}")), noise(day, 1_500_000)).unwrap();
        host.backup();
    }
    host
}

pub fn below(host: &Host, folder: &str, ending: &str) -> Vec<PathBuf> {
    let found = files(&host.folder().join(folder));
    let ours = |path: &PathBuf| path.to_string_lossy().ends_with(ending);
    found.into_iter().filter(ours).collect()
}

/// A page of an archive table. The same folder holds pages of earlier snapshots, and hashes order them all.
fn table_page(host: &Host) -> PathBuf {
    let is_page = |path: &PathBuf| TablePage::parse(&fs::read(path).unwrap()).is_ok();
    let mut pages = below(host, "tables", ".json").into_iter();
    pages.find(is_page).unwrap()
}

pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What `verify` said of a target that is not well.
pub fn found(host: &Host, arguments: &[&str]) -> String {
    host.exits(&[&["verify"], arguments].concat(), 3).0
}

#[test]
fn what_is_whole_is_said_to_be() {
    let host = with_history();
    let out = host.ok(&["verify"]);
    assert!(out.contains(": ok: 3 snapshots"), "{out}");
    let out = host.ok(&["verify", "--data"]);
    assert!(out.contains("read and hashed"), "{out}");
    let from = ["--from", "repo", "--signer", &host.signer];
    host.ok(&[&["verify", "--data=50%", "--rate", "100MB"], &from[..]].concat());
    for share in ["all", "50%"] {
        let out = host.ok(&["verify", "--data", share]);
        assert!(out.contains("3 snapshots"), "{out}");
        assert!(!out.contains("; 0 archives"), "{out}");
    }
    host.ok(&["verify", "latest", "--data"]);
    let (_, said) = host.exits(&["verify", "--data", "latest"], 2);
    assert!(said.contains("a snapshot goes before --data"), "{said}");
    host.ok(&["verify", "--at-least", "3"]);
    assert!(found(&host, &["--at-least", "4"]).contains("it was set back"));
}

/// By looking: what is missing, cut short, or put in another's place under a manifest's or page's name.
#[test]
fn looking_finds_what_is_missing_or_another() {
    type Damage = fn(&Host) -> PathBuf;
    let damages: [(&str, Damage); 7] = [
        ("is missing", |host| {
            below(host, "archives", ".age")[0].clone()
        }),
        ("bytes, its row says", |host| {
            let path = below(host, "archives", ".age")[1].clone();
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(100)
                .unwrap();
            path
        }),
        ("bytes, its row says", |host| {
            let path = below(host, "archives", ".age")[1].clone();
            fs::write(&path, "").unwrap();
            path
        }),
        ("archive table", |host| {
            let path = table_page(host);
            flip(&path);
            path
        }),
        ("not acceptable", |host| {
            let path = below(host, "manifests", ".json")[1].clone();
            flip(&path);
            path
        }),
        ("not acceptable", |host| {
            let path = below(host, "manifests", ".sig")[2].clone();
            flip(&path);
            path
        }),
        ("gone", |host| below(host, "manifests", ".json")[2].clone()),
    ];
    for (says, damage) in damages {
        let host = with_history();
        let path = damage(&host);
        if says == "is missing" || says == "gone" {
            fs::remove_file(&path).unwrap();
        }
        let out = found(&host, &[]);
        assert!(out.contains(says), "{says} is not in\n{out}");
    }
}

/// Only reading finds what has kept its size.
#[test]
fn reading_finds_what_kept_its_size() {
    let host = with_history();
    let archive = below(&host, "archives", ".age")[2].clone();
    flip(&archive);
    host.ok(&["verify"]);
    let out = found(&host, &["--data"]);
    let name = archive.file_name().unwrap().to_string_lossy().into_owned();
    assert!(out.contains(&name) && out.contains("damaged"), "{out}");
    assert!(out.contains("next: "), "{out}");
    let json = host.json_exits(&["verify", "--data"], &[3]);
    assert_eq!(json["targets"][0]["problems"].as_array().unwrap().len(), 1);
}

/// A share of the bytes each time, the longest unread first: soon all of them.
#[test]
fn shares_cover_everything_in_turn() {
    let host = with_history();
    let all = below(&host, "archives", ".age").len() as u64;
    let mut read = 0;
    for _ in 0..4 {
        let report = host.json(&["verify", "--data=30%"]);
        let now = report["targets"][0]["read_archives"].as_u64().unwrap();
        assert!((1..all).contains(&now), "{report}");
        read += now;
    }
    assert!(read >= all, "{read} of {all}");
    // One that is damaged is met within as many rounds, wherever its turn is.
    flip(&below(&host, "archives", ".age")[1]);
    let rounds = (0..4).filter(|_| {
        let report = host.json_exits(&["verify", "--data=30%"], &[0, 3]);
        !report["targets"][0]["problems"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    assert!(rounds.count() >= 1);
}

/// A target that was set back is not taken for a whole one; one that parted from the others is named.
#[test]
fn targets_are_held_against_each_other() {
    let host = with_history();
    let other = host.path("other").display().to_string();
    let target = format!("\n[[target]]\nname = \"other\"\nurl = \"file://{other}\"\n");
    host.ok(&["sync", "./repo", "./other"]);
    fs::write(host.path("c.toml"), host.config() + &target).unwrap();
    host.backup();
    host.ok(&["verify"]);
    for path in files(&host.path("other/dalidou/manifests")) {
        if path.to_string_lossy().contains("/00000004-") {
            fs::remove_file(path).unwrap();
        }
    }
    let out = found(&host, &[]);
    assert!(out.contains("it ends at sequence 3, folder at 4"), "{out}");
    assert!(out.contains("(sequence 4) was published there"), "{out}");
    // Another host pushed there under this name from the same past.
    fs::remove_dir_all(host.path("other")).unwrap();
    host.ok(&["sync", "./repo", "./other", "1", "2"]);
    let config = host.config();
    let start = config.find("[[target]]").unwrap();
    let end = config.find("\n[pack]").unwrap();
    let only_other = [&config[..start], &target, &config[end..]].concat();
    let only_other = only_other
        .rsplit_once("\n[[target]]")
        .map(|(head, _)| head.to_owned())
        .unwrap();
    fs::rename(host.path("c.state"), host.path("aside")).unwrap();
    fs::write(host.path("c.toml"), only_other).unwrap();
    fs::write(host.data().join("parted"), noise(77, 1000)).unwrap();
    host.exits_any(&["backup"], &[0, 3]);
    fs::remove_dir_all(host.path("c.state")).unwrap();
    fs::rename(host.path("aside"), host.path("c.state")).unwrap();
    fs::write(host.path("c.toml"), config).unwrap();
    let out = found(&host, &[]);
    assert!(out.contains("their histories parted"), "{out}");
}

#[test]
fn a_push_that_is_overdue_is_named() {
    let mut host = Host::new();
    let schedule = "\n[schedule]\nbackup = \"0 6 * * *\"\n";
    fs::write(host.path("c.toml"), host.config() + schedule).unwrap();
    fs::write(host.data().join("f"), noise(1, 1000)).unwrap();
    host.clock = Some("2026-04-01T06:00:00Z".to_owned());
    host.backup();
    host.clock = Some("2026-04-01T18:00:00Z".to_owned());
    host.ok(&["verify"]);
    host.clock = Some("2026-04-03T18:00:00Z".to_owned());
    let out = found(&host, &[]);
    assert!(out.contains("was due by 2026-04-02 12:00 UTC"), "{out}");
}

#[test]
fn a_target_that_cannot_be_looked_at_is_no_clean_one() {
    let host = with_history();
    fs::rename(host.path("repo"), host.path("unmounted")).unwrap();
    let (out, err) = host.exits(&["verify"], 1);
    assert!(
        out.contains("NOT VERIFIED") && err.contains("no target"),
        "{out}{err}"
    );
}

/// Every damage of every kind of object is found, by name; what keeps its size only by reading.
#[test]
fn every_damage_is_found_at_its_level() {
    let host = tamper::prepared();
    let mut by_looking = 0;
    for kind in tamper::KINDS {
        for action in tamper::ACTIONS {
            tamper::reset(&host);
            let case = format!("{kind:?}-{action:?}");
            let sizes = |objects: &[PathBuf]| -> Vec<Option<u64>> {
                let size = |path: &PathBuf| fs::metadata(path).ok().map(|meta| meta.len());
                objects.iter().map(size).collect()
            };
            let all = tamper::objects(&host, kind);
            let before = sizes(&all);
            let touched = tamper::tamper(&host, kind, action);
            let is_archive = matches!(kind, Kind::DataArchive | Kind::IndexArchive);
            let needs_reading = is_archive && before == sizes(&all);
            assert!(action != Action::Flip || needs_reading == is_archive);
            let said = match needs_reading {
                true => {
                    // A look says nothing, or what an earlier case's reading left in memory.
                    host.exits_any(&["verify"], &[0, 3]);
                    found(&host, &["--data"])
                }
                false => {
                    by_looking += 1;
                    found(&host, &[])
                }
            };
            let stamp = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.split('-')
                    .nth(1)
                    .is_some_and(|stamp| said.contains(stamp))
            };
            let named = |path: &PathBuf| tamper::names(&said, path) || stamp(path);
            assert!(touched.iter().any(named), "{case}: {touched:?}\n{said}");
            assert!(said.contains("next: "), "{case}: {said}");
        }
    }
    assert!(by_looking >= 20, "{by_looking}");
    tamper::reset(&host);
    host.ok(&["verify", "--data"]);
    host.ok(&["verify"]);
}

/// What reading found once is not forgotten by those that only look, until it is whole again.
#[test]
fn damage_is_remembered() {
    let host = with_history();
    let archive = below(&host, "archives", ".age")[2].clone();
    let good = fs::read(&archive).unwrap();
    flip(&archive);
    host.ok(&["verify"]);
    found(&host, &["--data"]);
    let out = found(&host, &[]);
    assert!(out.contains("was damaged when it was last read"), "{out}");
    // A small share comes to it, too, and goes on with the others.
    let report = host.json_exits(&["verify", "--data=1%"], &[3]);
    let read = report["targets"][0]["read_archives"].as_u64().unwrap();
    assert!((2..6).contains(&read), "{report}");
    assert_eq!(
        report["targets"][0]["problems"][0]["kind"],
        "archive_damaged"
    );
    fs::write(&archive, good).unwrap();
    host.ok(&["verify", "--data=1%"]);
    host.ok(&["verify"]);
}

/// A snapshot by its name: damage that it does not need is not looked for.
#[test]
fn single_snapshots_can_be_verified() {
    let host = with_history();
    let second = files(&host.folder().join("manifests"));
    let stamp = |n: usize| {
        let name = second[2 * n]
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        name.split('-').nth(1).unwrap().to_owned()
    };
    // The index of the newest snapshot is its own.
    let newest = tamper::objects(&host, Kind::IndexArchive).pop().unwrap();
    fs::remove_file(newest).unwrap();
    host.ok(&["verify", "1", &stamp(1), "--data"]);
    let out = found(&host, &["latest"]);
    assert!(
        out.contains("is missing") && out.contains(&stamp(2)),
        "{out}"
    );
    let out = found(&host, &["99"]);
    assert!(out.contains("there is no snapshot 99"), "{out}");
}

/// A target that was away is behind, not set back; one that came later has no history, and that is no finding.
#[test]
fn a_target_that_is_behind_is_not_said_to_be_set_back() {
    let host = with_history();
    fs::create_dir(host.path("other")).unwrap();
    let other = host.path("other").display().to_string();
    let target = format!("\n[[target]]\nname = \"other\"\nurl = \"file://{other}\"\n");
    fs::write(host.path("c.toml"), host.config() + &target).unwrap();
    host.backup();
    // It came with the fourth: what is before it was given up.
    let out = host.ok(&["verify", "--data"]);
    assert!(out.contains("not available there"), "{out}");
    fs::rename(host.path("other"), host.path("away")).unwrap();
    host.exits(&["backup"], 3);
    let out = found(&host, &[]);
    assert!(
        out.contains("other") && out.contains("NOT VERIFIED"),
        "{out}"
    );
    fs::rename(host.path("away"), host.path("other")).unwrap();
    let out = found(&host, &[]);
    assert!(
        out.contains("it is behind") && !out.contains("set back"),
        "{out}"
    );
    let report = host.json_exits(&["verify"], &[3]);
    assert_eq!(report["targets"][1]["problems"][0]["kind"], "behind");
    assert_eq!(
        report["targets"][0]["problems"].as_array().unwrap().len(),
        0
    );
    host.backup();
    host.ok(&["verify", "--target", "other", "--target", "folder"]);
    let only = host.json(&["verify", "--target", "other"]);
    assert_eq!(only["targets"].as_array().unwrap().len(), 1);
    let (_, err) = host.exits(&["verify", "--target", "nowhere"], 2);
    assert!(err.contains("no target is named nowhere"), "{err}");
}

/// Killed in the middle, it goes on with what it had not read yet.
#[test]
fn a_reading_of_everything_goes_on_where_it_was_killed() {
    let host = with_history();
    host.edit_config(
        "name = \"folder\"\n",
        "name = \"folder\"\nconcurrency = 1\n",
    );
    let all = below(&host, "archives", ".age").len() as u64;
    let mut slow = host
        .command(&["verify", "--data", "--rate", "1500kB"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let read = || {
        let catalog = Catalog::open(&host.path("c.state/catalog.db")).unwrap();
        catalog.checks("folder").unwrap().len() as u64
    };
    let begun = std::time::Instant::now();
    while read() < 2 {
        assert!(begun.elapsed().as_secs() < 60, "nothing was read");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    slow.kill().unwrap();
    slow.wait().unwrap();
    let before = read();
    assert!(before < all, "it was too fast: {before}");
    let report = host.json(&["verify", "--data"]);
    let target = &report["targets"][0];
    assert_eq!(target["read_before"], before, "{report}");
    assert_eq!(target["read_archives"], all - before, "{report}");
    // That one came to its end: the next begins at the start.
    let report = host.json(&["verify", "--data"]);
    assert_eq!(report["targets"][0]["read_archives"], all, "{report}");
}

/// On S3, with nothing but the URL: a week's share is deterministic, and reading everything finds the damage.
#[test]
fn an_s3_target_is_verified_from_its_url() {
    let (host, server) = (with_history(), S3Server::start());
    let (url, endpoint) = (format!("s3://{BUCKET}/off/site"), server.endpoint());
    let run = |arguments: &[&str], code: i32| {
        let mut command = host.command(arguments);
        let output = server.output_of(&mut command);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{out}{err}");
        out
    };
    run(&["sync", "./repo", &url, "--to-endpoint", &endpoint], 0);
    let from = [
        "--from",
        &url,
        "--endpoint",
        &endpoint,
        "--signer",
        &host.signer,
    ];
    let verify =
        |arguments: &[&str], code| run(&[&["verify"], arguments, &from[..]].concat(), code);
    assert!(verify(&["--data"], 0).contains(": ok: 3 snapshots"));
    let share = ["--data=30%"];
    assert_eq!(verify(&share, 0), verify(&share, 0));
    let stored = server.bucket_dir().join("off/site/dalidou/archives");
    let archive = files(&stored)
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "age"));
    flip(&archive.unwrap());
    verify(&[], 0);
    assert!(verify(&["--data"], 3).contains("is damaged"));
}
