//! `verify`: whatever is wrong with what a target stores is found, at the price it takes to find it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::{Host, files};
use crate::tree::noise;

fn with_history() -> Host {
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

fn below(host: &Host, folder: &str, ending: &str) -> Vec<PathBuf> {
    let found = files(&host.folder().join(folder));
    let ours = |path: &PathBuf| path.to_string_lossy().ends_with(ending);
    found.into_iter().filter(ours).collect()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What `verify` said of a target that is not well.
fn found(host: &Host, arguments: &[&str]) -> String {
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
            let path = below(host, "tables", ".json")[0].clone();
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

/// A target that was set back is told from one that is whole; one that parted from the others is named.
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
