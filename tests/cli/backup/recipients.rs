//! A change of the recipients, and what is said before it costs a full push.

use std::fs;
use std::process::Command;

use crate::prune::set_clock;
use crate::support::files::files;
use crate::support::host::Host;
use crate::support::tree::noise;

/// What a backup's report or `status` says of content that is sent again.
fn said(value: &serde_json::Value) -> Option<String> {
    let notes = value["notes"].as_array().unwrap().iter();
    let mut texts = notes.map(|note| note.as_str().unwrap().to_owned());
    texts.find(|text| text.contains("encrypted and sent again"))
}

#[test]
fn a_new_recipient_is_said_to_cost_a_full_push_before_it_does() {
    let host = Host::new();
    fs::write(host.data().join("large"), noise(1, 2_000_000)).unwrap();
    assert_eq!(said(&host.backup()), None);
    assert_eq!(said(&host.json(&["status"])), None);
    let second = host.generate("second.txt");
    let old = format!("\"{}\"", host.recipient);
    let both = format!("{old}, \"{second}\"");
    host.edit_config(&old, &both);
    let before = said(&host.json(&["status"])).unwrap();
    assert!(
        before.contains(&second) && before.contains("2.00 MB in 1 archive"),
        "{before}"
    );
    assert_eq!(
        said(&host.json(&["status", "--offline"])),
        Some(before.clone())
    );
    let text = host.ok(&["status"]);
    assert!(text.contains(&format!("next backup: {before}")), "{text}");
    let report = host.backup();
    assert_eq!(said(&report), Some(before));
    assert!(
        report["new_archive_bytes"].as_u64().unwrap() > 1_900_000,
        "{report}"
    );
    // Once it is done, and after a removal, there is nothing to say.
    assert_eq!(said(&host.backup()), None);
    host.edit_config(&both, &format!("\"{second}\""));
    assert_eq!(said(&host.json(&["status"])), None);
    let report = host.backup();
    assert_eq!(said(&report), None);
    assert!(
        report["new_archive_bytes"].as_u64().unwrap() < 100_000,
        "{report}"
    );
}

/// The archives of the target's folder that `identity` opens with stock `age`.
fn opened_by_age(host: &Host, identity: &str) -> usize {
    let archives = files(&host.folder().join("archives")).into_iter();
    let opened = archives.filter(|archive| {
        let age = Command::new("age")
            .args(["-d", "-i"])
            .args([&host.path(identity), archive])
            .output()
            .unwrap();
        age.status.success()
    });
    opened.count()
}

fn recipients(host: &Host) -> Vec<(String, bool, String)> {
    let report = host.json_exits(&["key", "recipients"], &[0, 3]);
    let all = report["recipients"].as_array().unwrap().iter();
    all.map(|one| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (text("recipient"), one["is_current"] == true, text("latest"))
    })
    .collect()
}

/// Kind: a removed recipient goes on opening what is new, because old archives are used again.
#[test]
fn after_a_reseal_a_former_recipient_opens_nothing_new() {
    let mut host = Host::new();
    let second = host.generate("second.txt");
    let old = format!("\"{}\"", host.recipient);
    let both = format!("{old}, \"{second}\"");
    host.edit_config(&old, &both);
    // Most of the archive stays live, so compaction does not pack it again.
    fs::write(host.data().join("stays"), noise(1, 3_000_000)).unwrap();
    fs::write(host.data().join("comes back"), noise(2, 500_000)).unwrap();
    set_clock(&mut host, 0);
    host.backup();
    host.edit_config(&both, &old);
    fs::remove_file(host.data().join("comes back")).unwrap();
    set_clock(&mut host, 1);
    host.backup();
    let first = host.recipient.clone();
    let expected = [
        (first.clone(), true, "full".to_owned()),
        (second.clone(), false, "part".to_owned()),
    ];
    assert_eq!(recipients(&host), expected);
    // The newest snapshot is one of them, and never goes.
    let refused = host.exits(&["prune", "--sealed-to", &second, "--yes"], 1).1;
    assert!(refused.contains("newest"), "{refused}");

    set_clock(&mut host, 2);
    let report = host.json(&["backup", "--reseal"]);
    assert!(
        report["new_archive_bytes"].as_u64().unwrap() > 3_000_000,
        "{report}"
    );
    fs::write(host.data().join("comes back"), noise(2, 500_000)).unwrap();
    set_clock(&mut host, 3);
    let report = host.backup();
    let new = report["new_archive_bytes"].as_u64().unwrap();
    assert!((500_000..600_000).contains(&new), "{report}");
    let expected = [
        (first, true, "full".to_owned()),
        (second.clone(), false, "nothing".to_owned()),
    ];
    assert_eq!(recipients(&host), expected);
    assert!(opened_by_age(&host, "second.txt") > 0);

    let unknown = host
        .exits(&["prune", "--sealed-to", "age1unknown", "--yes"], 2)
        .1;
    assert!(unknown.contains(&second), "{unknown}");
    let (shown, said) = host.exits(&["prune", "--sealed-to", &second], 0);
    assert_eq!(shown.matches("forget").count(), 2, "{shown}");
    assert!(said.contains("--yes deletes these"), "{said}");
    assert_eq!(host.remote_list()["snapshots"].as_array().unwrap().len(), 4);
    host.ok(&["prune", "--sealed-to", &second, "--yes"]);
    set_clock(&mut host, 4);
    host.backup();
    host.ok(&["prune", "--policy", "last=9"]);
    assert_eq!(opened_by_age(&host, "second.txt"), 0);
    let archives = files(&host.folder().join("archives")).len();
    assert_eq!(opened_by_age(&host, "key.txt"), archives);
    host.restore("latest", "whole");
    host.recover("latest", "recovered");
    fs::rename(host.path("second.txt"), host.path("key.txt")).unwrap();
    let refused = host.refused("latest", "none");
    assert!(refused.contains("identit"), "{refused}");
    host.recover_refused("latest", "none");
    // The policy had nothing to say in it.
    let none = host.exits(&["prune", "--sealed-to", &second, "--yes"], 2).1;
    assert!(none.contains("no archive is sealed to"), "{none}");
}
