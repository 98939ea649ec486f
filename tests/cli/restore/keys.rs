//! Who can open what: every kind of key, recipients that come and go, and the host, which cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use sealift::restore::open::{Identities, Prompt, SecretString, opens};

use crate::support::files::files;
use crate::support::files::mode_of;
use crate::support::host::{Host, texts};
use crate::support::tree::{describe, noise};

struct Nobody;

impl Prompt for Nobody {
    fn passphrase(&self, _what: &str) -> Option<SecretString> {
        None
    }
    fn message(&self, _text: &str) {}
}

fn fill(host: &Host, n: u64) {
    fs::write(host.data().join("secret"), noise(n, 40_000)).unwrap();
}

fn restore(host: &Host, identity: &str, to: &str) -> std::process::Output {
    host.run(&[
        "restore",
        "latest",
        "--from",
        "repo",
        "--accept-signer",
        "--identity",
        identity,
        "--to",
        to,
    ])
}

/// The host with its key holder's files taken away, and what is off-site.
#[test]
fn nothing_on_the_host_opens_anything() {
    let host = Host::new();
    fill(&host, 1);
    host.backup();
    let archives = files(&host.folder().join("archives"));
    let mut candidates = files(&host.path("c.state"));
    for name in ["c.toml", "c.signer", "c.signer.pub", "allowed_signers"] {
        candidates.push(host.path(name));
    }
    candidates.retain(|path| path.exists());
    // Every line of every file as an identity too, whatever file it is in.
    for (number, path) in candidates.clone().into_iter().enumerate() {
        let bytes = fs::read(&path).unwrap();
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| (20..400).contains(&line.len()));
        for (line_number, line) in lines.take(200).enumerate() {
            let file = host.path(&format!("line-{number}-{line_number}"));
            fs::write(&file, line).unwrap();
            candidates.push(file);
        }
        let text = String::from_utf8_lossy(&bytes).to_uppercase();
        assert!(!text.contains("AGE-SECRET-KEY-1"), "{}", path.display());
    }
    assert!(candidates.len() > 20);
    let nobody: Arc<dyn Prompt> = Arc::new(Nobody);
    let mut usable = 0;
    for candidate in &candidates {
        let Ok(identities) = Identities::load(std::slice::from_ref(candidate), &nobody) else {
            continue;
        };
        usable += 1;
        for archive in &archives {
            assert!(
                !opens(&identities, &fs::read(archive).unwrap()),
                "{}",
                candidate.display()
            );
        }
    }
    // The signer is an OpenSSH key and loads as an identity: it was really tried.
    assert!(usable >= 1);
    let key_holder = Identities::load(&[host.path("key.txt")], &nobody).unwrap();
    for archive in &archives {
        assert!(opens(&key_holder, &fs::read(archive).unwrap()));
    }
}

#[test]
fn an_identity_in_the_config_is_refused() {
    let host = Host::new();
    fill(&host, 1);
    let identity = fs::read_to_string(host.path("key.txt")).unwrap();
    let secret = identity
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-1"))
        .unwrap();
    let recipient = format!("\"{}\"", host.recipient);
    let good = host.config();
    let quoted = format!("\"{secret}\"");
    for bad in [quoted.as_str(), "\"key.txt\"", "\"c.signer\""] {
        fs::write(host.path("c.toml"), good.replace(&recipient, bad)).unwrap();
        let (_, err) = host.exits(&["backup"], 2);
        assert!(err.contains("identity") || err.contains("private"), "{err}");
        assert!(!err.contains(secret), "the secret is in the message");
        assert!(!host.folder().join("manifests").exists());
    }
}

#[test]
fn an_added_recipient_opens_latest_in_full_and_a_removed_one_nothing_after() {
    let host = Host::new();
    fill(&host, 1);
    host.backup();
    let second = host.generate("second.txt");
    let one = format!("recipients = [\"{}\"]", host.recipient);
    let both = format!("recipients = [\"{}\", \"{second}\"]", host.recipient);
    host.edit_config(&one, &both);
    // Nothing changed but the recipients.
    host.backup();
    let status = host.json(&["status"]);
    for recipient in status["targets"][0]["recipients"].as_array().unwrap() {
        assert_eq!(recipient["opens_in_full"], true, "{status}");
    }
    for identity in ["key.txt", "second.txt"] {
        let to = format!("out-{identity}");
        let output = restore(&host, identity, &to);
        assert!(output.status.success(), "{}", texts(&output).1);
        assert_eq!(
            describe(&host.path(&to).join("data")),
            describe(&host.data())
        );
    }
    let only_second = format!("recipients = [\"{second}\"]");
    host.edit_config(&both, &only_second);
    let before = files(&host.folder().join("archives"));
    fill(&host, 2);
    host.backup();
    let nobody: Arc<dyn Prompt> = Arc::new(Nobody);
    let removed = Identities::load(&[host.path("key.txt")], &nobody).unwrap();
    let after = files(&host.folder().join("archives"));
    let new: Vec<&PathBuf> = after.iter().filter(|path| !before.contains(path)).collect();
    assert!(!new.is_empty());
    for archive in new {
        assert!(!opens(&removed, &fs::read(archive).unwrap()));
    }
    assert!(!restore(&host, "key.txt", "out-removed").status.success());
    assert!(restore(&host, "second.txt", "out-stays").status.success());
}

/// Backs up to `recipient` alone and restores with `identity`, by Sealift and by hand.
fn round_trip(host: &Host, recipient: &str, identity: &str, more: &[(&str, &str)]) {
    let config = host.config();
    let start = config.find("recipients = ").unwrap();
    let end = start + config[start..].find('\n').unwrap();
    let config = format!(
        "{}recipients = [\"{recipient}\"]{}",
        &config[..start],
        &config[end..]
    );
    fs::write(host.path("c.toml"), config).unwrap();
    fill(host, 7);
    let run = |mut command: Command| {
        let path = format!(
            "{}:{}",
            host.temp.path().display(),
            std::env::var("PATH").unwrap()
        );
        let output = command
            .env("PATH", path)
            .envs(more.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", texts(&output).1);
    };
    run(host.command(&["backup"]));
    run(host.command(&[
        "restore",
        "latest",
        "--from",
        "repo",
        "--signer",
        &host.signer,
        "--identity",
        identity,
        "--to",
        "out",
    ]));
    assert_eq!(describe(&host.path("out/data")), describe(&host.data()));
}

fn ssh_keygen(host: &Host, kind: &str, more: &[&str]) -> String {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", kind, "-N", "", "-C", "test", "-f"])
        .arg(host.path("ssh-key"))
        .args(more);
    assert!(command.status().unwrap().success());
    fs::read_to_string(host.path("ssh-key.pub"))
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn ssh_ed25519_keys() {
    let host = Host::new();
    let recipient = ssh_keygen(&host, "ed25519", &[]);
    round_trip(&host, &recipient, "ssh-key", &[]);
    let mut by_hand = host.recover_command("latest", "by-hand");
    by_hand.args(["--identity", "ssh-key"]);
    let output = by_hand.output().unwrap();
    assert!(output.status.success(), "{}", texts(&output).1);
}

#[test]
fn ssh_rsa_keys_and_recipient_files() {
    let host = Host::new();
    ssh_keygen(&host, "rsa", &["-b", "2048"]);
    round_trip(&host, "ssh-key.pub", "ssh-key", &[]);
}

#[test]
fn passphrase_sealed_identities() {
    let host = Host::new();
    fs::write(host.path("passphrase"), "correct horse\n").unwrap();
    let passphrase = host.path("passphrase").display().to_string();
    let output = host
        .command(&["key", "generate", "--passphrase", "--output", "sealed.txt"])
        .env("SEALIFT_PASSPHRASE_FILE", &passphrase)
        .output()
        .unwrap();
    let (recipient, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    let sealed = fs::read(host.path("sealed.txt")).unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("AGE-SECRET-KEY"));
    round_trip(
        &host,
        recipient.trim(),
        "sealed.txt",
        &[("SEALIFT_PASSPHRASE_FILE", &passphrase)],
    );
    // Without the passphrase, and without a terminal to ask on, it says so.
    let output = restore(&host, "sealed.txt", "out-2");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output).1.contains("passphrase"),
        "{}",
        texts(&output).1
    );
}

/// A plugin that hides the file key behind an XOR: it speaks the protocol, and guards nothing.
pub const PLUGIN: &str = r#"#!/usr/bin/env python3
import base64, sys
def read():
    line = sys.stdin.readline().strip()
    if not line: sys.exit(0)
    args, body = line.split()[1:], ''
    while True:
        part = sys.stdin.readline().strip()
        body += part
        if len(part) < 64: break
    return args, base64.b64decode(body + '=' * (-len(body) % 4))
def write(args, body=b''):
    text = base64.b64encode(body).decode().rstrip('=')
    print('-> ' + args)
    for i in range(0, len(text) + 1, 64): print(text[i:i + 64])
    sys.stdout.flush()
keys, stanzas = [], []
while True:
    args, body = read()
    if args[0] == 'wrap-file-key': keys.append(body)
    if args[0] == 'recipient-stanza': stanzas.append((args[1], args[2], body))
    if args[0] == 'done': break
turn = lambda body: bytes(b ^ 0x5a for b in body)
for n, key in enumerate(keys):
    write(f'recipient-stanza {n} faketest', turn(key)); read()
for n, tag, body in stanzas:
    if tag == 'faketest': write(f'file-key {n}', turn(body)); read(); break
write('done')
"#;

#[test]
fn plugin_recipients_and_identities() {
    let host = Host::new();
    let plugin = host.path("age-plugin-faketest");
    fs::write(&plugin, PLUGIN).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        host.path("plugin-key"),
        "AGE-PLUGIN-FAKETEST-1DPJKCMR0L5PDR2\n",
    )
    .unwrap();
    round_trip(&host, "age1faketest1dpjkcmr0jjs57f", "plugin-key", &[]);
}

/// The tripwire: whatever made the stanzas, an object with other ones than expected is not stored.
#[test]
fn an_object_with_a_stanza_too_many_is_not_stored() {
    let host = Host::new();
    let wraps = "write(f'recipient-stanza {n} faketest', turn(key)); read()";
    let twice = PLUGIN.replace(wraps, &format!("{wraps}; {wraps}"));
    assert_ne!(twice, PLUGIN);
    let plugin = host.path("age-plugin-faketest");
    fs::write(&plugin, twice).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    host.edit_config(&host.recipient, "age1faketest1dpjkcmr0jjs57f");
    fill(&host, 1);
    let path = format!(
        "{}:{}",
        host.temp.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = host
        .command(&["backup"])
        .env("PATH", path)
        .output()
        .unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("not age with 1 stanzas: 2 stanzas"), "{err}");
    assert!(!host.folder().join("archives").exists());
    assert!(files(&host.path("c.state/spool")).is_empty());
}

/// No byte leaves the host unsealed: neither content nor names.
#[test]
fn neither_content_nor_names_stand_on_the_target() {
    let host = Host::new();
    fs::write(host.data().join("telltale-name"), b"telltale-content").unwrap();
    fs::write(host.data().join("noise"), noise(1, 100_000)).unwrap();
    host.ok(&["backup", "--tag", "telltale-tag", "--note", "telltale-note"]);
    let noise = noise(1, 100_000);
    for file in files(&host.folder()) {
        let bytes = fs::read(&file).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(
            !holds(b"telltale") && !holds(&noise[5000..5032]),
            "{}",
            file.display()
        );
        assert!(
            !holds(host.temp.path().display().to_string().as_bytes()),
            "{}",
            file.display()
        );
    }
}

#[test]
fn key_show_and_key_check() {
    let host = Host::new();
    assert_eq!(host.ok(&["key", "show", "key.txt"]).trim(), host.recipient);
    let other = host.generate("other.txt");
    let said = host.ok(&[
        "key",
        "check",
        "--identity",
        "key.txt",
        &host.recipient,
        &other,
    ]);
    assert!(
        said.contains(&format!("opens  {}", host.recipient)),
        "{said}"
    );
    assert!(said.contains(&format!("does not open  {other}")), "{said}");
    let (_, err) = host.exits(
        &["key", "check", "--identity", "other.txt", &host.recipient],
        1,
    );
    assert!(err.contains("opens nothing"), "{err}");
    // A file that is there is never replaced.
    let before = fs::read(host.path("key.txt")).unwrap();
    host.exits(&["key", "generate", "--output", "key.txt"], 1);
    assert_eq!(fs::read(host.path("key.txt")).unwrap(), before);
    assert_eq!(mode_of(&host.path("key.txt")), 0o600);
    assert_eq!(mode_of(&host.path("c.signer")), 0o600);
}

#[test]
fn a_wrong_identity_is_told_so() {
    let host = Host::new();
    fill(&host, 1);
    host.backup();
    host.generate("other.txt");
    let output = restore(&host, "other.txt", "out");
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err.contains("the identity cannot decrypt snapshot"),
        "{err}"
    );
    assert!(err.contains(host.recipient.trim()), "{err}");
    assert!(err.contains("give the identity of one of these"), "{err}");
    assert!(!host.path("out").exists());
}
