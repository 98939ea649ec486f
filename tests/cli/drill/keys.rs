//! `key prove`: an identity is known to exist, whatever kind it is, and wherever it is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::{Drilling, result};
use crate::restore::keys::PLUGIN;
use crate::support::files::files;
use crate::support::host::texts;

const PLUGIN_RECIPIENT: &str = "age1faketest1dpjkcmr0jjs57f";

/// A host whose backup each kind of identity opens, and its key holder.
fn keys() -> Drilling {
    let drilling = Drilling::without_backup("");
    let plugin = drilling.path("age-plugin-faketest");
    fs::write(&plugin, PLUGIN).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        drilling.path("hardware"),
        "AGE-PLUGIN-FAKETEST-1DPJKCMR0L5PDR2\n",
    )
    .unwrap();
    fs::write(drilling.path("passphrase"), "a long enough one\n").unwrap();
    let mut sealed =
        drilling.command(&["key", "generate", "--output", "sealed.txt", "--passphrase"]);
    let sealed = sealed
        .env("SEALIFT_PASSPHRASE_FILE", drilling.path("passphrase"))
        .output()
        .unwrap();
    let (sealed, err) = texts(&sealed);
    assert!(sealed.starts_with("age1"), "{err}");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(drilling.path("ssh"))
        .status();
    assert!(made.unwrap().success());
    let ssh = fs::read_to_string(drilling.path("ssh.pub")).unwrap();
    let native = drilling.host.recipient.clone();
    let all = [native.as_str(), sealed.trim(), ssh.trim(), PLUGIN_RECIPIENT];
    let all = all.map(|one| format!("{one:?}")).join(", ");
    drilling.host.edit_config(&format!("{native:?}"), &all);
    let mut backup = drilling.host.command(&["backup"]);
    let (_, err) = texts(&with_plugin(&drilling, &mut backup));
    assert!(err.contains("complete") || !err.contains("error"), "{err}");
    assert!(drilling.host.folder().join("manifests").exists(), "{err}");
    drilling
}

fn with_plugin(drilling: &Drilling, command: &mut Command) -> Output {
    let dir = drilling.host.temp.path().display();
    let path = format!("{dir}:{}", std::env::var("PATH").unwrap());
    command
        .env("PATH", path)
        .env("SEALIFT_PASSPHRASE_FILE", drilling.path("passphrase"))
        .output()
        .unwrap()
}

fn prove(drilling: &Drilling, arguments: &[&str], code: i32) -> (Value, String) {
    let mut command = drilling.command(&["--json", "key", "prove"]);
    let signer = ["--signer-key", "drill", "--by", "drill@laptop"];
    command.args(arguments).args(signer);
    result(with_plugin(drilling, &mut command), code)
}

/// Which recipients the host knows to be alive.
fn alive(drilling: &Drilling) -> Vec<String> {
    let mut status = drilling.host.command(&["--json", "status"]);
    let output = with_plugin(drilling, &mut status);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys = status["proof"]["keys"].as_array().unwrap().iter();
    keys.filter(|key| !key["alive_after"].is_null())
        .map(|key| key["recipient"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_kind_of_identity_can_be_proven() {
    let drilling = keys();
    assert!(alive(&drilling).is_empty());
    let from = [
        "--from",
        "./repo",
        "--host",
        "dalidou",
        "--signer",
        "allowed_signers",
    ];
    let kinds = ["key.txt", "sealed.txt", "ssh", "hardware"];
    for (number, identity) in kinds.into_iter().enumerate() {
        let given = [&from[..], &["--identity", identity]].concat();
        let (proven, err) = prove(&drilling, &given, 0);
        let recipients = proven["proofs"][0]["recipients"].as_array().unwrap();
        assert_eq!(recipients.len(), 1, "{identity}: {proven}{err}");
        let alive = alive(&drilling);
        // Each receipt is by the same principal about the same snapshot.
        let recipient = recipients[0].as_str().unwrap().to_owned();
        assert!(alive.contains(&recipient), "{identity}: {alive:?}");
        assert_eq!(alive.len(), number + 1, "{identity}: {alive:?}");
    }
    // The plugin's key may not have been used, since another one opens it, too.
    let both = ["--identity", "key.txt", "--identity", "hardware"];
    let (proven, _) = prove(&drilling, &[&from[..], &both].concat(), 0);
    assert_eq!(
        proven["proofs"][0]["recipients"].as_array().unwrap().len(),
        1
    );
    drilling.host.generate("stranger.txt");
    let given = [&from[..], &["--identity", "stranger.txt"]].concat();
    let (_, err) = prove(&drilling, &given, 1);
    assert!(err.contains("cannot decrypt"), "{err}");
}

#[test]
fn a_key_in_a_safe_is_proven_by_files() {
    let drilling = Drilling::new("");
    let from = ["--from", "./repo", "--signer", "allowed_signers"];
    let (collected, _) = prove(&drilling, &[&from[..], &["--collect", "stick"]].concat(), 0);
    assert!(collected["bytes"].as_u64().unwrap() > 0);
    // Nothing of the data is on the stick, and the target is away meanwhile.
    assert!(files(&drilling.path("stick")).len() >= 4);
    fs::rename(drilling.path("repo"), drilling.path("away")).unwrap();
    let offline = [
        "--archive",
        "stick",
        "--output",
        "receipt.json",
        "--identity",
        "key.txt",
    ];
    let (proven, _) = prove(&drilling, &offline, 0);
    assert_eq!(proven["proofs"][0]["target"]["name"], "folder");
    fs::rename(drilling.path("away"), drilling.path("repo")).unwrap();
    let upload = ["--upload", "receipt.json", "--from", "./repo"];
    prove(&drilling, &upload, 0);
    let proof = drilling.proof();
    assert_eq!(proof["keys"][0]["by"], "drill@laptop", "{proof}");
    assert_eq!(proof["newest"], Value::Null);
    // Without the manifest, with a wrong file, and to a place that has no such snapshot.
    let is_manifest = |path: &PathBuf| path.to_str().unwrap().contains("00000001-");
    let manifest = files(&drilling.path("stick")).into_iter().find(is_manifest);
    fs::remove_file(manifest.unwrap()).unwrap();
    let again = [
        "--archive",
        "stick",
        "--output",
        "again.json",
        "--identity",
        "key.txt",
    ];
    let (_, err) = prove(&drilling, &again, 2);
    assert!(err.contains("--collect"), "{err}");
    let (_, err) = prove(&drilling, &["--upload", "key.txt", "--from", "./repo"], 2);
    assert!(err.contains("is no receipt"), "{err}");
    fs::create_dir(drilling.path("other")).unwrap();
    let (_, err) = prove(
        &drilling,
        &["--upload", "receipt.json", "--from", "./other"],
        1,
    );
    assert!(err.contains("is not on"), "{err}");
}
