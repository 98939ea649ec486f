//! A library that panics in the middle of a run: Google's metadata service is played by a server whose answers no
//! client foresees. Its target fails, as any target may; nothing else does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use crate::support::host::{Host, texts};

/// A token without an end: the library adds its time to now, and panics.
const ENDLESS: &str =
    r#"{"access_token": "hunter2", "expires_in": 18446744073709551615, "token_type": "Bearer"}"#;
/// A token that no header can hold.
const BROKEN: &str =
    r#"{"access_token": "hunter2\nx", "expires_in": 3600, "token_type": "Bearer"}"#;

fn metadata_service(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 8 << 10]);
            let length = answer.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let _ = client.write_all(
                format!("{head}\r\ncontent-length: {length}\r\n\r\n{answer}").as_bytes(),
            );
        }
    });
    address
}

/// A host with a healthy folder and a bucket whose library panics.
fn host() -> Host {
    let host = Host::new();
    fs::write(host.data().join("f"), "x").unwrap();
    let odd = "\n[[target]]\nname = \"odd\"\nurl = \"gs://bucket/x\"\nendpoint = \"http://127.0.0.1:1\"\nretry = \"0s\"\nprune = true\n";
    fs::write(host.path("c.toml"), host.config() + odd).unwrap();
    host
}

#[test]
fn a_panic_behind_one_target_is_that_targets_failure_in_every_command() {
    for answer in [ENDLESS, BROKEN] {
        let service = metadata_service(answer).to_string();
        let host = host();
        let run = |arguments: &[&str]| {
            let mut command = host.command(arguments);
            command
                .env("GCE_METADATA_HOST", &service)
                .env("GCE_METADATA_IP", &service);
            let output = command.output().unwrap();
            let (out, err) = texts(&output);
            let said = format!("{out}{err}");
            assert!(
                !said.contains("panicked") && !said.contains("hunter2"),
                "{arguments:?}: {said}"
            );
            // With the place in the library, so that a developer can find it.
            let told = said.contains("an internal error") && said.contains(".rs:");
            (output.status.code(), told, said)
        };
        for (arguments, code, healthy) in [
            (&["backup"][..], 3, "published"),
            (&["backup"], 3, "published"),
            (&["status"], 3, "(file://"),
            (&["verify"], 3, "ok"),
            (&["prune", "--policy", "last=1"], 3, "deleted 1 of"),
            (&["prune", "--dry-run", "--policy", "last=1"], 3, "keep"),
        ] {
            let (ended, told, said) = run(arguments);
            assert_eq!(ended, Some(code), "{arguments:?}: {said}");
            assert!(told && said.contains(healthy), "{arguments:?}: {said}");
        }
        if answer == BROKEN {
            // Of the second kind the first commands will do.
            continue;
        }
        for arguments in [
            &["list", "--target", "odd"][..],
            &["sync", "./repo", "odd"],
            &["sync", "odd", "./repo"],
            &["verify", "--target", "odd"],
            &[
                "restore",
                "--target",
                "odd",
                "--identity",
                "key.txt",
                "--to",
                "out",
            ],
        ] {
            let (ended, told, said) = run(arguments);
            assert_eq!(ended, Some(1), "{arguments:?}: {said}");
            assert!(told, "{arguments:?}: {said}");
        }
        host.restore("latest", "back");
    }
}

#[test]
fn init_tries_the_other_targets_when_one_panics() {
    let service = metadata_service(ENDLESS).to_string();
    let host = Host::new();
    fs::remove_file(host.path("c.toml")).unwrap();
    let arguments = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        &host.recipient,
        "--target",
        "gs://bucket/x",
        "--target",
        "repo2",
        "--tree",
        "data",
    ];
    let mut command = host.command(&arguments);
    command
        .env("GCE_METADATA_HOST", &service)
        .env("GCE_METADATA_IP", &service);
    let output = command.output().unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(
        out.contains("folder: can write") && !format!("{out}{err}").contains("panicked"),
        "{out}{err}"
    );
}
