//! Tags that keep their snapshots: on targets, on the host, and where they are not known.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::set_clock;
use crate::support::files::files;
use crate::support::host::{Host, SEALIFT};
use crate::support::tree::noise;

/// A host that keeps one day, and what has the tag `release`. One snapshot a day, with these tags.
fn tagged(tags: &[&str]) -> Host {
    let mut host = Host::new();
    let config = host.config();
    let (head, _) = config.split_once("\n[retention]\n").unwrap();
    let retention =
        "\n[snapshots]\nkeep = 1\n\n[retention]\ndaily = 1\nkeep_tags = [\"release\"]\n";
    fs::write(host.path("c.toml"), format!("{head}{retention}")).unwrap();
    for (number, tag) in tags.iter().enumerate() {
        backup(&mut host, number as i64, tag);
    }
    host
}

fn backup(host: &mut Host, number: i64, tag: &str) {
    set_clock(host, number);
    fs::write(host.data().join("today"), noise(number as u64, 20_000)).unwrap();
    match tag {
        "" => host.json(&["backup"]),
        tag => host.json(&["backup", "--tag", "daily", "--tag", tag]),
    };
}

/// Sequence and reasons of each snapshot that stays on the target.
fn kept(report: &Value) -> Vec<(u64, String)> {
    let all = report["targets"][0]["snapshots"].as_array().unwrap();
    let kept = all.iter().filter(|one| one["stays"] == true);
    kept.map(|one| {
        let reasons = one["reasons"].as_array().unwrap();
        let reasons: Vec<&str> = reasons.iter().map(|one| one.as_str().unwrap()).collect();
        (one["sequence"].as_u64().unwrap(), reasons.join(", "))
    })
    .collect()
}

fn sequences(report: &Value) -> Vec<u64> {
    kept(report).into_iter().map(|(number, _)| number).collect()
}

fn dry_run(host: &Host, more: &[&str]) -> Value {
    host.json(&[&["prune", "--dry-run"], more].concat())
}

fn lose_the_catalog(host: &Host) {
    for file in files(&host.path("c.state")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("catalog") {
            fs::remove_file(file).unwrap();
        }
    }
}

fn lose_the_directories(host: &Host) {
    let here = fs::read_dir(host.path("c.state/snapshots")).unwrap();
    for one in here {
        fs::remove_dir_all(one.unwrap().path()).unwrap();
    }
}

#[test]
fn snapshots_with_a_kept_tag_stay_on_targets_and_on_the_host() {
    let host = tagged(&["release", "", "release", "tax", ""]);
    let here = |host: &Host| {
        let list = host.json(&["list"]);
        let all = list["backups"].as_array().unwrap().clone();
        let here = all.iter().filter(|one| one["path"].is_string());
        let shown = here.map(|one| (one["sequence"].as_u64().unwrap(), one["kept"].to_string()));
        shown.collect::<Vec<_>>()
    };
    // `[snapshots] keep = 1` was applied after each backup.
    let tag = "[\"has a kept tag\"]".to_owned();
    assert_eq!(
        here(&host),
        [(1, tag.clone()), (3, tag), (5, "[]".to_owned())]
    );
    let report = dry_run(&host, &[]);
    let tagged = "has a kept tag".to_owned();
    let expected = [(1, tagged.clone()), (3, tagged.clone())];
    assert_eq!(kept(&report)[..2], expected);
    assert_eq!(sequences(&report), [1, 3, 5]);
    // One more tag for this prune, whatever the policy.
    assert_eq!(
        sequences(&dry_run(&host, &["--keep-tag", "tax"])),
        [1, 3, 4, 5]
    );
    let other = dry_run(&host, &["--policy", "last=1", "--keep-tag", "tax"]);
    assert_eq!(sequences(&other), [1, 3, 4, 5]);
    let table = host.ok(&["prune", "--dry-run"]);
    assert!(table.contains("has a kept tag"), "{table}");
    // It is not deleted by name either.
    for local in [&[][..], &["--local"]] {
        let named = [&["prune", "--forget", "1", "--yes"], local].concat();
        let (_, err) = host.exits_any(&named, &[1]);
        assert!(err.contains("keep_tags"), "{err}");
    }
    host.ok(&["prune", "--yes"]);
    let left = host.remote_list();
    let left = left["snapshots"].as_array().unwrap().iter();
    let left: Vec<&Value> = left.map(|one| &one["sequence"]).collect();
    assert_eq!(left, [1, 3, 5]);
    // Without the tag in the configuration, the policy decides.
    host.edit_config("keep_tags = [\"release\"]\n", "");
    assert_eq!(sequences(&dry_run(&host, &[])), [5]);
}

#[test]
fn a_target_has_tags_of_its_own_or_those_of_all() {
    let host = tagged(&["release", "tax", ""]);
    let target = "[[target]]\n";
    host.edit_config(target, "[[target]]\nretention = { last = 1 }\n");
    assert_eq!(sequences(&dry_run(&host, &[])), [1, 3]);
    for (own, left) in [("[]", &[3][..]), ("[\"tax\"]", &[2, 3])] {
        let before = host.config();
        host.edit_config(
            "{ last = 1 }",
            &format!("{{ last = 1, keep_tags = {own} }}"),
        );
        assert_eq!(sequences(&dry_run(&host, &[])), left, "{own}");
        fs::write(host.path("c.toml"), before).unwrap();
    }
    // Nothing but tags would delete everything else.
    host.edit_config("{ last = 1 }", "{ keep_tags = [\"tax\"] }");
    let (_, err) = host.exits(&["prune", "--dry-run"], 2);
    assert!(err.contains("add a rule such as last = 1"), "{err}");
}

/// Kind: what this host forgot is taken for a snapshot without tags.
#[test]
fn a_snapshot_whose_tags_are_not_known_stays_until_they_are() {
    let mut host = tagged(&["release", "", "tax"]);
    lose_the_catalog(&host);
    lose_the_directories(&host);
    backup(&mut host, 3, "");
    let report = dry_run(&host, &[]);
    let unknown = |number| (number, "tags not known".to_owned());
    assert_eq!(kept(&report)[..3], [unknown(1), unknown(2), unknown(3)]);
    assert_eq!(report["targets"][0]["unknown_tags"], 3);
    let (_, err) = host.exits(&["prune"], 0);
    assert!(
        err.contains("3 snapshots kept") && err.contains("--identity"),
        "{err}"
    );
    let list = host.json(&["list"]);
    assert_eq!(list["backups"][0]["tags"], Value::Null);
    assert!(host.ok(&["list"]).contains('?'));
    // By name only with a confirmation.
    let (_, err) = host.exits(&["prune", "--forget", "2"], 1);
    assert!(err.contains("the tags of snapshot"), "{err}");
    // A backup that prunes keeps them, too.
    host.edit_config("[[target]]\n", "[[target]]\nprune = true\n");
    set_clock(&mut host, 9);
    fs::write(host.data().join("today"), "nine").unwrap();
    let (_, err) = host.exits(&["backup"], 0);
    assert!(err.contains("3 snapshots kept"), "{err}");
    host.edit_config("prune = true\n", "");
    // The key holder decrypts them, or they are learned for good.
    let decrypted = dry_run(&host, &["--identity", "key.txt"]);
    assert_eq!(sequences(&decrypted)[0], 1);
    assert!(!sequences(&decrypted).contains(&2), "{decrypted}");
    assert_eq!(decrypted["targets"][0]["unknown_tags"], 0);
    let rebuilt = host.json(&["catalog", "rebuild", "--identity", "key.txt"]);
    assert_eq!(rebuilt["without_known_tags"], 0);
    let learned = dry_run(&host, &[]);
    assert_eq!(sequences(&learned), sequences(&decrypted));
    assert_eq!(kept(&learned)[0], (1, "has a kept tag".to_owned()));
    let deleted = host.json(&["prune", "--forget", "2", "--yes"]);
    let forgotten = deleted["targets"][0]["done"]["forgotten"]
        .as_array()
        .unwrap();
    assert_eq!(forgotten.len(), 1, "{deleted}");
}

#[test]
fn a_key_holder_without_a_configuration_keeps_what_an_identity_shows() {
    let host = tagged(&["release", "", "tax", ""]);
    fs::create_dir(host.path("else")).unwrap();
    let prune = |more: &[&str]| {
        let mut command = Command::new(SEALIFT);
        let base = "--json prune --from ../repo --policy last=1 --dry-run --signer";
        command
            .args(base.split(' '))
            .arg(&host.signer)
            .args(more)
            .current_dir(host.path("else"))
            .env_remove("SEALIFT_CONFIG")
            .env("HOME", host.path("else"))
            .env("SEALIFT_CLOCK", host.clock.as_ref().unwrap());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(sequences(&prune(&["--keep-tag", "tax"])), [1, 2, 3, 4]);
    let identity = ["--keep-tag", "tax", "--identity", "../key.txt"];
    assert_eq!(sequences(&prune(&identity)), [3, 4]);
}

/// Programs may write into the directory of a snapshot; what was packed has the tag.
#[test]
fn a_tag_that_is_taken_out_of_a_directory_keeps_the_snapshot() {
    let host = tagged(&["release", "", ""]);
    let snapshots = host.path("c.state/snapshots");
    for entry in fs::read_dir(&snapshots).unwrap() {
        let path = entry.unwrap().path().join("backup-metadata.json");
        let mut metadata: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        metadata["sealift"]["tags"] = serde_json::json!([]);
        fs::remove_file(&path).unwrap();
        fs::write(&path, metadata.to_string()).unwrap();
    }
    assert_eq!(sequences(&dry_run(&host, &[])), [1, 3]);
    let here = || fs::read_dir(&snapshots).unwrap().count();
    assert_eq!(here(), 2);
    // A catalog that is made again from the old one believes the old one.
    host.ok(&["catalog", "rebuild"]);
    assert_eq!(sequences(&dry_run(&host, &[])), [1, 3]);
}
