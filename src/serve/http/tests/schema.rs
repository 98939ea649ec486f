//! The long form: the document of the API is valid, and schemathesis finds no answer that it does
//! not describe.

use std::process::Command;
use std::time::Duration;

use super::stand_in::{Setup, TOKEN, TestAgent, Work, add_runs};
use crate::serve::http::ClientLimits;

fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Has schemathesis ask an agent with or without tokens.
fn schemathesis_asks(has_tokens: bool) {
    if std::env::var_os("SEALIFT_TEST_LONG").is_none_or(|value| value != "1") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    ok(Command::new("python3").args(["-m", "venv"]).arg(dir.path()));
    let bin = |name: &str| Command::new(dir.path().join("bin").join(name));
    ok(bin("pip").args(["-q", "install", "openapi-spec-validator", "schemathesis"]));
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/http/openapi.json");
    ok(bin("openapi-spec-validator").arg(document));
    let agent = TestAgent::with(Setup {
        has_tokens,
        limits: ClientLimits {
            stream: Duration::from_millis(50),
            ..ClientLimits::default()
        },
        ..Setup::default()
    });
    agent.set_work(Work::Succeeds(Duration::ZERO));
    add_runs(&agent, 300);
    let mut command = bin("schemathesis");
    let url = format!("http://{}/openapi.json", agent.address);
    command.args(["run", &url, "--checks", "all", "--max-examples", "200"]);
    // With several threads Python 3.11 fails in itself: "AST constructor recursion depth
    // mismatch".
    command
        .args(["--workers", "1", "--seed", "7"])
        .current_dir(dir.path());
    if has_tokens {
        command.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
    }
    println!("{}", ok(&mut command));
}

#[test]
fn schemathesis_finds_nothing_without_a_token() {
    schemathesis_asks(false);
}

#[test]
fn schemathesis_finds_nothing_with_a_token() {
    schemathesis_asks(true);
}
