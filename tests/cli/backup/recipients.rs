//! A change of the recipients, and what is said before it costs a full push.

use std::fs;

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
