//! Named places of backups on the key holder's machine.

use std::fs;

use super::shell::{Scene, Shell};

/// A backup of dalidou, and a key holder without a configuration.
fn key_holder() -> Shell {
    let shell = Shell::new(Scene::Backup);
    shell.ok("mkdir server; mv c.* server/");
    shell
}

/// Runs it without a configuration; exit code 0.
fn ok(shell: &Shell, script: &str) -> String {
    shell.ok(&format!("unset SEALIFT_CONFIG; {script}"))
}

fn run(shell: &Shell, script: &str) -> (i32, String) {
    shell.run(&format!("unset SEALIFT_CONFIG; {script}"))
}

const NAMED: &str = "sealift remote add dalidou repo --host dalidou --signer allowed_signers\n";

#[test]
fn every_from_and_both_sides_of_a_copy_may_be_a_name() {
    let shell = key_holder();
    ok(&shell, NAMED);
    ok(&shell, "sealift remote add copy $PWD/second");
    // From anywhere: the path and the signer's file are absolute.
    ok(
        &shell,
        "mkdir below && cd below && sealift list --from dalidou && sealift remote test dalidou",
    );
    for command in [
        "sealift ls latest --from dalidou --identity key.txt",
        "sealift restore latest --from dalidou --identity key.txt --to out",
        "sealift verify --from dalidou",
        "sealift verify --from dalidou --identity key.txt",
        "sealift status --from dalidou",
        "sealift sync dalidou copy --dry-run",
        "sealift sync dalidou copy",
        "sealift list --from copy --signer allowed_signers",
    ] {
        let said = ok(&shell, command);
        assert!(!said.contains("warning: line"), "{command}: {said}");
    }
    assert!(shell.dir().join("second/dalidou/manifests").is_dir());
    // The remote's signer counts, and an option counts more.
    ok(
        &shell,
        "sed -i 's/^signer = .*/signer = \"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"/' .config/sealift/remotes.toml",
    );
    let (code, said) = run(&shell, "sealift list --from dalidou");
    assert_eq!(
        (code, said.contains("is not a trusted signer")),
        (1, true),
        "{said}"
    );
    ok(
        &shell,
        "sealift list --from dalidou --signer allowed_signers",
    );
    let (code, said) = run(&shell, "sealift sync dalidou copy");
    assert_eq!(
        (code, said.contains("is not a trusted signer")),
        (1, true),
        "{said}"
    );
}

#[test]
fn a_remote_without_a_signer_has_the_one_that_is_remembered() {
    let shell = key_holder();
    let said = ok(
        &shell,
        "sealift remote add dalidou repo && sealift remote list",
    );
    assert!(said.contains("not known yet"), "{said}");
    let (code, said) = run(&shell, "sealift remote test dalidou");
    assert_eq!(
        (code, said.contains("is not confirmed")),
        (1, true),
        "{said}"
    );
    ok(&shell, "sealift list --from dalidou --accept-signer");
    let said = ok(&shell, "sealift remote test dalidou && sealift remote list");
    assert!(
        said.contains("(remembered)") && said.contains("(sequence 1)"),
        "{said}"
    );
    let list: serde_json::Value =
        serde_json::from_str(&without_warnings(&ok(&shell, "sealift --json remote list"))).unwrap();
    assert_eq!(list[0]["name"], "dalidou");
    assert_eq!(list[0]["url"], shell.dir().join("repo").to_str().unwrap());
    assert_eq!(list[0]["known_signers"][0]["host"], "dalidou");
    ok(&shell, "sealift remote forget dalidou");
    let (code, said) = run(&shell, "sealift remote forget dalidou");
    assert_eq!(
        (code, said.contains("no signer is remembered")),
        (2, true),
        "{said}"
    );
    ok(&shell, "sealift remote remove dalidou");
    let said = ok(&shell, "sealift remote list");
    assert!(said.contains("no remote yet"), "{said}");
}

fn without_warnings(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.starts_with("warning: "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A name has no slash and no colon. A remote comes before a folder, a target of the configuration before a remote.
#[test]
fn one_rule_decides_what_a_name_means() {
    let shell = Shell::new(Scene::Backup);
    shell.ok("mkdir empty; sealift remote add nas repo --signer allowed_signers");
    // A folder of the same name needs ./
    shell.ok("mkdir nas && sealift list --from nas");
    let (code, said) = shell.run("sealift list --from ./nas");
    assert_eq!(
        (code, said.contains("no backups found")),
        (1, true),
        "{said}"
    );
    // A folder without a remote of its name is the folder.
    shell.ok("sealift list --from repo --signer allowed_signers");
    // A target of the configuration comes first.
    let (code, said) = shell.run("sealift remote add folder empty");
    assert_eq!(
        (
            code,
            said.contains("a target of the configuration is named folder")
        ),
        (2, true),
        "{said}"
    );
    shell.ok("printf '[folder]\\nurl = \"/nowhere\"\\n' >>.config/sealift/remotes.toml");
    shell.ok("sealift status --from folder && sealift sync folder ./copy");
    // A typing error names the nearest.
    for (command, code) in [
        ("sealift list --from nsa", 1),
        ("sealift sync nsa ./copy", 2),
        ("sealift status --from nsa", 2),
    ] {
        let (found, said) = shell.run(command);
        assert_eq!(found, code, "{said}");
        assert!(said.contains("did you mean nas?"), "{said}");
    }
    for name in ["a/b", "a:b", ".", "-x", "ä"] {
        let (code, said) = shell.run(&format!("sealift remote add -- '{name}' repo"));
        assert_eq!(
            (code, said.contains("cannot be the name")),
            (2, true),
            "{said}"
        );
    }
}

#[test]
fn a_file_of_remotes_that_others_can_write_is_refused() {
    let shell = key_holder();
    ok(&shell, NAMED);
    ok(&shell, "chmod 666 .config/sealift/remotes.toml");
    for command in [
        "sealift list --from dalidou",
        "sealift remote list",
        "sealift remote add x repo",
        "sealift sync dalidou ./copy",
    ] {
        let (code, said) = run(&shell, command);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("can be written by others") && said.contains("chmod go-w"),
            "{said}"
        );
    }
    // A URL needs no file.
    ok(
        &shell,
        "sealift list --from ./repo --signer allowed_signers",
    );
}

#[test]
fn a_remote_keeps_no_secret_and_no_nonsense() {
    let shell = key_holder();
    let key = fs::read_to_string(shell.dir().join("key.txt")).unwrap();
    let key = key.lines().last().unwrap();
    for (arguments, what) in [
        (
            "x https://me:hunter2@dav.example.org/x".to_owned(),
            "a password in a URL",
        ),
        (format!("x /repo --ssh 'ssh {key}'"), "an age identity"),
        ("x gopher://nas/x".to_owned(), "sealift knows"),
        ("x repo --signer nonsense".to_owned(), "nonsense"),
        ("x repo --host a/b".to_owned(), "a/b"),
        ("x memory://".to_owned(), "in memory"),
    ] {
        let (code, said) = run(&shell, &format!("sealift remote add {arguments}"));
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains(what) && !said.contains("hunter2") && !said.contains(key),
            "{said}"
        );
    }
    assert!(!shell.dir().join(".config/sealift/remotes.toml").exists());
    ok(&shell, "sealift remote add x repo");
    let (code, said) = run(&shell, "sealift remote add x repo");
    assert_eq!(
        (code, said.contains("is named x already")),
        (2, true),
        "{said}"
    );
}
