//! Kind: the host's signer is exchanged. Readers who trust the old one must be led to the new one, or the
//! host refuses before it publishes what they would refuse.

use std::fs;
use std::process::Command;

use crate::support::host::Host;
use crate::support::tree::describe;

/// A host with one backup, and the fingerprint of a second key beside its signer.
fn host_and_second_signer() -> (Host, String) {
    let host = Host::new();
    fs::write(host.data().join("file"), "1").unwrap();
    host.backup();
    let second = make_signer(&host, "c.signer-2");
    (host, second)
}

/// Makes the signer `name` beside the configuration. Returns its fingerprint.
fn make_signer(host: &Host, name: &str) -> String {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
    assert!(keygen.arg(host.path(name)).status().unwrap().success());
    let shown = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(host.path(name))
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.split_whitespace().nth(1).unwrap().to_owned()
}

fn use_signer(host: &Host, from: &str, to: &str) {
    host.edit_config(
        &format!("signer = \"{from}\""),
        &format!("signer = \"{to}\""),
    );
}

/// Adds the line of the signer `name` to the host's `allowed_signers`.
fn list_signer(host: &Host, name: &str) {
    let key = fs::read_to_string(host.path(&format!("{name}.pub"))).unwrap();
    let path = host.path("allowed_signers");
    let mut list = fs::read_to_string(&path).unwrap();
    list.push_str("dalidou namespaces=\"sealift-manifest,sealift-prune\" ");
    list.push_str(&key);
    fs::write(&path, list).unwrap();
}

/// Asserts that a backup is refused, names both signers and the steps, and changes nothing.
fn assert_refused(host: &Host, new: &str) {
    let stored = describe(&host.folder());
    let snapshots = || fs::read_dir(host.path("c.state/snapshots")).map_or(0, Iterator::count);
    let before = snapshots();
    let (_, err) = host.exits(&["backup"], 2);
    for part in [new, &host.signer, "next_signer", "allowed_signers"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert_eq!(describe(&host.folder()), stored);
    assert_eq!(snapshots(), before, "no snapshot was taken for nothing");
    let (out, _) = host.exits(&["status"], 3);
    assert!(out.contains("RED backup_refused"), "{out}");
    assert!(out.contains(new), "{out}");
}

#[test]
fn an_exchange_without_an_introduction_is_refused() {
    let (host, second) = host_and_second_signer();
    use_signer(&host, "c.signer", "c.signer-2");
    assert_refused(&host, &second);
    use_signer(&host, "c.signer-2", "c.signer");
    host.backup();
    host.ok(&["status"]);
}

#[test]
fn an_announcement_counts_once_a_manifest_has_made_it() {
    let (host, second) = host_and_second_signer();
    let old = "signer = \"c.signer\"";
    let announced = format!("{old}\nnext_signer = \"c.signer-2.pub\"");
    // Announced in the configuration, and exchanged before a backup.
    host.edit_config(
        old,
        "signer = \"c.signer-2\"\nnext_signer = \"c.signer-2.pub\"",
    );
    assert_refused(&host, &second);
    host.edit_config(
        "signer = \"c.signer-2\"\nnext_signer = \"c.signer-2.pub\"",
        &announced,
    );
    host.backup();
    // A backup in between that announces nothing does not take it back.
    host.edit_config(&announced, old);
    host.backup();
    use_signer(&host, "c.signer", "c.signer-2");
    host.backup();
    host.ok(&["status"]);
    host.ok(&["verify"]);
    // The old one again: the list that `init` wrote has it.
    use_signer(&host, "c.signer-2", "c.signer");
    host.backup();
    host.restore("latest", "out");
}

#[test]
fn a_lost_signer_is_replaced_by_a_line_in_both_lists() {
    let (host, second) = host_and_second_signer();
    fs::remove_file(host.path("c.signer")).unwrap();
    use_signer(&host, "c.signer", "c.signer-2");
    assert_refused(&host, &second);
    list_signer(&host, "c.signer-2");
    host.backup();
    // The operator decided it: no alarm, but the readers who are left behind are named.
    let out = host.ok(&["status"]);
    assert!(out.contains("refuse the newest snapshot"), "{out}");
    host.ok(&["verify"]);
    let allowed = host.path("allowed_signers").display().to_string();
    let restored = [
        "restore",
        "latest",
        "--from",
        "repo",
        "--identity",
        "key.txt",
        "--signer",
        &allowed,
        "--to",
        "out",
    ];
    host.ok(&restored);
}

#[test]
fn what_the_catalog_remembers_decides_where_nothing_can_be_read() {
    let (host, second) = host_and_second_signer();
    host.edit_config("[[target]]", "[[target]]\nwrite_only = true");
    use_signer(&host, "c.signer", "c.signer-2");
    let (_, err) = host.exits(&["backup"], 2);
    assert!(err.contains(&second), "{err}");
}

#[test]
fn a_lost_or_rebuilt_catalog_does_not_forget_who_signed() {
    let (host, second) = host_and_second_signer();
    host.ok(&["catalog", "rebuild"]);
    use_signer(&host, "c.signer", "c.signer-2");
    assert_refused(&host, &second);
    fs::remove_dir_all(host.path("c.state")).unwrap();
    let (_, err) = host.exits(&["backup"], 2);
    assert!(err.contains(&second) && err.contains(&host.signer), "{err}");
    let manifests = fs::read_dir(host.folder().join("manifests")).unwrap();
    assert_eq!(manifests.count(), 2, "one manifest and its signature");
}

/// A version of Sealift that did not refuse it has published such a snapshot.
#[test]
fn readers_who_are_locked_out_already_are_reported() {
    let (host, second) = host_and_second_signer();
    use_signer(&host, "c.signer", "c.signer-2");
    let catalog = rusqlite::Connection::open(host.path("c.state/catalog.db")).unwrap();
    let forgotten = catalog.execute("DELETE FROM meta WHERE key = 'last signer'", []);
    assert_eq!(forgotten.unwrap(), 1);
    drop(catalog);
    host.backup();
    for command in ["status", "verify"] {
        let (out, err) = host.exits(&[command], 3);
        let said = out + &err;
        assert!(said.contains("refuse the newest snapshot"), "{said}");
        assert!(
            said.contains(&second) && said.contains(&host.signer),
            "{said}"
        );
    }
    list_signer(&host, "c.signer-2");
    host.ok(&["status"]);
    host.ok(&["verify"]);
}
