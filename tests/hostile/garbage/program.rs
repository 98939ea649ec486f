//! The program, with garbage in its environment and in one target's keys, through every command.

use std::fs;
use std::process::Command;

use super::configuration::quoted;
use super::values::{Source, assert_no_panic};
use crate::support::host::{Host, texts};
use crate::support::is_long;

/// What each command is given; `odd` is the target with the garbage.
const COMMANDS: &[&[&str]] = &[
    &["backup"],
    &["push"],
    &["snapshot"],
    &["validate"],
    &["status"],
    &["list"],
    &["list", "--target", "odd"],
    &["ls"],
    &["ls", "--target", "odd", "--identity", "key.txt"],
    &["verify"],
    &["verify", "--target", "odd"],
    &["verify", "--repair"],
    &["prune", "--dry-run"],
    &["prune", "--target", "odd"],
    &["sync", "repo/", "odd"],
    &["sync", "odd", "./copy", "--dry-run"],
    &[
        "restore",
        "latest",
        "--target",
        "odd",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ],
    &["catalog", "check"],
    &["catalog", "rebuild"],
    &["adopt", "--target", "odd"],
    &["status", "--from", "odd"],
];

/// Variables of the odd target's, and of any program's.
const VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SKIP_SIGNATURE",
    "AWS_CHECKSUM_ALGORITHM",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RSYNC_PASSWORD",
];

fn run(host: &Host, command: &mut Command, what: &str) -> (Option<i32>, String) {
    let output = match command.output() {
        // Longer than the system allows: no server was asked.
        Err(error) if error.kind() == std::io::ErrorKind::ArgumentListTooLong => {
            return (None, String::new());
        }
        output => output.unwrap(),
    };
    let (out, err) = texts(&output);
    let said = format!("{out}{err}");
    assert_no_panic(&said, what);
    assert!(!said.contains("hunter2"), "{what}: {said}");
    assert!(
        matches!(output.status.code(), Some(0..=3)),
        "{what}: {:?} {said}",
        output.status
    );
    let _ = fs::remove_dir_all(host.path("out"));
    (output.status.code(), said)
}

fn host_with_odd(more: &str) -> Host {
    let host = Host::new();
    fs::write(host.data().join("f"), "x").unwrap();
    host.backup();
    let odd = format!("\n[[target]]\nname = \"odd\"\nretry = \"0s\"\ntimeout = \"1s\"\n{more}");
    fs::write(host.path("c.toml"), host.config() + &odd).unwrap();
    host
}

#[test]
fn a_variable_that_is_garbage_ends_no_command_badly() {
    let host = host_with_odd("url = \"s3://bucket/x\"\nendpoint = \"http://127.0.0.1:1\"\n");
    let mut source = Source::new();
    let rounds = if is_long() { 40 } else { 1 };
    for arguments in (0..rounds).flat_map(|_| COMMANDS) {
        let (name, value) = (*source.of(VARIABLES), source.garbage_of_processes());
        let mut command = host.command(arguments);
        command
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "hunter2");
        command.env(name, &value);
        let what = format!(
            "{name}={:?} {arguments:?}",
            value.chars().take(100).collect::<String>()
        );
        let (code, said) = run(&host, &mut command, &what);
        if arguments == &["backup"] && code.is_some() {
            assert_eq!(code, Some(3), "{what}: {said}");
            assert!(
                said.contains("published") && said.contains("odd"),
                "{what}: {said}"
            );
        }
    }
}

#[test]
fn a_key_of_one_target_that_is_garbage_is_named_or_leaves_the_other_its_snapshot() {
    const KEYS: &[&str] = &[
        "url",
        "endpoint",
        "region",
        "ssh",
        "class",
        "data_class",
        "upload",
        "timeout",
        "retry",
    ];
    let host = host_with_odd("");
    let plain = host.config();
    let mut source = Source::new();
    for _ in 0..if is_long() { 400 } else { 16 } {
        let key = *source.of(KEYS);
        let value = source.garbage();
        let is_url = key == "url";
        let rest = "url = \"s3://bucket/x\"\nendpoint = \"http://127.0.0.1:1\"\n";
        let rest: String = rest
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|l| format!("{l}\n"))
            .collect();
        let rest = if is_url { String::new() } else { rest };
        let base = match key {
            "timeout" | "retry" => plain.replace(&format!("{key} = "), "# "),
            _ => plain.clone(),
        };
        fs::write(
            host.path("c.toml"),
            format!("{base}{rest}{key} = {}\n", quoted(&value)),
        )
        .unwrap();
        let what = format!("{key} = {:?}", value.chars().take(100).collect::<String>());
        let mut command = host.command(&["backup"]);
        command
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "hunter2");
        let (code, said) = run(&host, &mut command, &what);
        match code {
            Some(2) => assert!(said.contains("c.toml:"), "{what}: {said}"),
            _ => assert!(said.contains("published"), "{what}: {code:?} {said}"),
        }
    }
}

#[test]
fn an_argument_that_is_garbage_ends_no_command_badly() {
    let host = host_with_odd("url = \"s3://bucket/x\"\nendpoint = \"http://127.0.0.1:1\"\n");
    let mut source = Source::new();
    let right = |option: &str| match option {
        "--from" => "s3://bucket/x",
        _ => "http://127.0.0.1:1",
    };
    for round in 0..if is_long() { 400 } else { 14 } {
        let option = *source.of(&[
            "--from",
            "--endpoint",
            "--region",
            "--ssh",
            "--host",
            "--signer",
        ]);
        // What looks like an option would be one.
        let value = source
            .garbage_of_processes()
            .trim_start_matches('-')
            .to_owned();
        let commands: &[&[&str]] = &[
            &["list"],
            &["verify"],
            &["restore", "--identity", "key.txt", "--to", "out"],
            &["prune", "--policy", "last=1", "--dry-run"],
        ];
        let mut arguments: Vec<String> = commands[round % commands.len()]
            .iter()
            .map(|a| (*a).to_owned())
            .collect();
        for given in ["--from", "--endpoint"] {
            if given != option {
                arguments.extend([given.to_owned(), right(given).to_owned()]);
            }
        }
        arguments.extend([option.to_owned(), value.clone()]);
        let mut command = host.command(&arguments);
        // A place off this machine has no way there.
        command
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "hunter2");
        command
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("HTTPS_PROXY", "http://127.0.0.1:1");
        command.env("SSL_CERT_FILE", "/nonexistent");
        if !is_quick(option, &value) {
            continue;
        }
        run(&host, &mut command, &format!("{arguments:?}"));
    }
}

/// Not what waits for the target's usual patience: with `--from` that cannot be changed.
fn is_quick(option: &str, value: &str) -> bool {
    match option {
        "--endpoint" => sealift::storage::TargetSpec {
            endpoint: Some(value.to_owned()),
            ..sealift::storage::TargetSpec::from_url("s3://bucket/x")
        }
        .check()
        .is_err(),
        "--from" => {
            let spec = sealift::storage::TargetSpec::from_url(value);
            spec.check().is_err() || sealift::storage::folder_path(value).is_some()
        }
        "--region" => sealift::storage::TargetSpec {
            region: Some(value.to_owned()),
            ..sealift::storage::TargetSpec::from_url("s3://bucket/x")
        }
        .check()
        .is_err(),
        _ => false,
    }
}
