//! Receipts that must not count, on a real target.

use std::fs;
use std::time::Duration;

use sealift::base::ids::Hash;
use sealift::format::signature::Signer;
use serde_json::{Value, json};

use super::Drilling;
use crate::support::cost::cost_exits;
use crate::support::is_long;

/// Writes a receipt with these bytes under the name that fits it, signed by `signer` if there is one.
fn plant(drilling: &Drilling, bytes: &[u8], place: &str, signer: Option<&Signer>) -> String {
    let dir = drilling.host.folder().join("receipts");
    fs::create_dir_all(&dir).unwrap();
    let name = format!("{place}-{}", Hash::sha256(bytes).short());
    fs::write(dir.join(format!("{name}.json")), bytes).unwrap();
    if let Some(signer) = signer {
        let signature = signer.sign("sealift-receipt", bytes).unwrap();
        fs::write(dir.join(format!("{name}.json.sig")), signature).unwrap();
    }
    name
}

/// The line `original` with another value of a key, which is added if it is new.
fn edited(original: &str, key: &str, value: &Value) -> Vec<u8> {
    let named = format!("\"{key}\":");
    let text = match original.find(&named) {
        Some(at) => {
            let (before, after) = original.split_at(at + named.len());
            format!("{before}{value}{}", &after[raw(after).len()..])
        }
        None => original.replacen('{', &format!("{{{named}{value},"), 1),
    };
    text.into_bytes()
}

/// The JSON value at the start of `text`, as it is written there.
fn raw(text: &str) -> String {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    values.next().unwrap().unwrap();
    text[..values.byte_offset()].to_owned()
}

#[test]
fn forged_receipts_are_refused_and_change_nothing() {
    let drilling = Drilling::new("");
    drilling.drill(&[], 0);
    let before = drilling.proof();
    assert_eq!(before["refused"], 0);
    let receipts = drilling.receipts();
    let dir = drilling.host.folder().join("receipts");
    let original = fs::read_to_string(dir.join(&receipts[0])).unwrap();
    let place = receipts[0].rsplit_once('-').unwrap().0.to_owned();
    let driller = Signer::load(&drilling.path("drill")).unwrap();
    let host = Signer::load(&drilling.path("c.signer")).unwrap();
    let stranger = drilling.signer("stranger");
    let mut expected = Vec::new();
    let mut add = |name: String, reason: &'static str| expected.push((name, reason));
    let edited = |key: &str, value: Value| edited(&original, key, &value);
    // The thief of the signer has no identity: whatever the receipt says, the witness is not of it.
    for (key, value, reason) in [
        ("outcome", json!("failed"), "witness"),
        ("tool", json!("sealift 9"), "witness"),
        ("errors", json!(["none"]), "witness"),
        ("seconds", json!(0), "unknown field"),
        ("by", json!("drill@other"), "may not sign"),
        ("host", json!("other"), "about the host other"),
        ("core", json!("00".repeat(32)), "never published"),
        ("started_at", json!("2020-01-01T00:00:00Z"), "impossible"),
        ("finished_at", json!("2096-01-01T00:00:00Z"), "impossible"),
        ("requires", json!(["escrow"]), "newer Sealift"),
        ("witness", json!(""), "witness"),
        ("witness", json!("00".repeat(32)), "witness"),
        ("restored", Value::Null, "not what was restored"),
    ] {
        add(
            plant(&drilling, &edited(key, value), &place, Some(&driller)),
            reason,
        );
    }
    // Another target: the id is the target's.
    let other = edited("id", json!("00".repeat(8)));
    add(plant(&drilling, &other, &place, Some(&driller)), "witness");
    let other = edited("tool", json!("sealift 8"));
    add(
        plant(&drilling, &other, &place, Some(&stranger)),
        "may not sign",
    );
    let other = edited("tool", json!("sealift 7"));
    add(
        plant(&drilling, &other, &place, Some(&host)),
        "the host's own key",
    );
    let other = edited("tool", json!("sealift 6"));
    add(plant(&drilling, &other, &place, None), "no signature");
    let large = vec![b' '; (64 << 10) + 1];
    add(
        plant(&drilling, &large, &place, Some(&driller)),
        "larger than",
    );
    add(
        plant(&drilling, b"\xff\xfe", &place, Some(&driller)),
        "not UTF-8",
    );
    let blank = [original.as_bytes(), b" "].concat();
    add(plant(&drilling, &blank, &place, Some(&driller)), "");
    // The good one under another snapshot's name, and one of a snapshot that never was.
    let moved = format!("00000007-{}", place.split_once('-').unwrap().1);
    let again = original.as_bytes();
    add(
        plant(&drilling, again, &moved, Some(&driller)),
        "never published",
    );
    let (count, proof) = (expected.len() as u64, drilling.proof());
    for key in ["newest", "targets", "keys", "schema_changed_at"] {
        assert_eq!(proof[key], before[key], "{key}");
    }
    assert_eq!(proof["refused"], count, "{proof}");
    let listed = proof["receipts"].as_array().unwrap();
    let mut named = 0;
    for (name, reason) in &expected {
        // The first twenty are named.
        if let Some(one) = listed.iter().find(|one| one["name"] == name.as_str()) {
            named += 1;
            assert_eq!(one["result"], "foreign", "{one}");
            let why = one["why"].as_str().unwrap();
            assert!(why.contains(reason), "{name}: {why}, expected {reason}");
        }
    }
    assert_eq!(named, 20);
    let (text, _) = drilling.host.exits_any(&["status"], &[0, 3]);
    assert!(text.contains("not believed"), "{text}");
}

/// Kind: an owner of the target fills the folder.
#[test]
fn many_receipts_take_bounded_time_and_do_not_hide_the_good_one() {
    let drilling = Drilling::new("");
    drilling.drill(&[], 0);
    let before = drilling.proof();
    let receipts = drilling.receipts();
    let (sequence, stamp) = {
        let mut parts = receipts[0].split('-');
        (
            parts.next().unwrap().to_owned(),
            parts.next().unwrap().to_owned(),
        )
    };
    let dir = drilling.host.folder().join("receipts");
    let many = if is_long() { 100_000 } else { 2_000 };
    for number in 0..many {
        // Newer by name than the good one, as a snapshot that never was, and some of its own.
        let of = match number % 100 {
            0 => format!("{sequence}-{stamp}"),
            _ => format!("{:08}-{stamp}", 10_000_000 + number),
        };
        let name = format!("{of}-{:016x}", number);
        fs::write(dir.join(format!("{name}.json")), b"{}\n").unwrap();
        fs::write(dir.join(format!("{name}.json.sig")), b"x").unwrap();
    }
    let mut command = drilling.host.command(&["--json", "status"]);
    let cost = cost_exits(&mut command, drilling.host.temp.path(), &[0, 3]);
    let mut status: Value = serde_json::from_str(&cost.said).unwrap();
    let proof = status["proof"].take();
    println!(
        "status with {many} planted receipts: {:?}, {:?} of processor, {} KiB",
        cost.wall,
        cost.processor,
        cost.peak_bytes >> 10
    );
    // Receipts that are not read cost their names.
    assert!(cost.processor < Duration::from_secs(if is_long() { 30 } else { 10 }));
    assert!(cost.peak_bytes < 150 << 20, "{} bytes", cost.peak_bytes);
    assert_eq!(proof["newest"], before["newest"]);
    assert!(proof["receipts"].as_array().unwrap().len() < 100);
    let seen = proof["refused"].as_u64().unwrap() + proof["unread"].as_u64().unwrap();
    let of_good = many + 1 - 200.min(many / 100 + 1);
    assert!(seen >= of_good, "{seen}");
}
