//! The checks after a restore, against a service, databases and commands that are real.

mod queries;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealift::checks::{CheckResult, CheckSubject, run_checks};
use sealift::config::Config;
use serde_json::json;

use crate::support::atocore::AtoCore;

const RECIPIENT: &str = "age1848ccmukddy6uns3v72sk8hka02zjcytc29flsg9zcjslj5apdsqt4lze9";

/// The configuration with these tables.
fn config(tables: &str) -> Config {
    let text = format!(
        "host = \"h\"\nrecipients = [\"{RECIPIENT}\"]\nsigner = \"signer\"\nstate = \"state\"\n{tables}"
    );
    Config::parse(&text, Path::new("/nowhere/c.toml")).unwrap()
}

fn run(config: &Config, base_url: Option<&str>, patience: Duration) -> Vec<CheckResult> {
    let checks: Vec<_> = config.checks.iter().collect();
    let subject = CheckSubject {
        base_url,
        restored: None,
        database: &|name| Some(PathBuf::from(name)),
        file: &|path| Some(path.to_owned()),
    };
    run_checks(&checks, &subject, patience)
}

fn preset() -> Config {
    config("[snapshots]\npreset = \"atocore\"\nroot = \"/srv/atocore\"\n")
}

fn named<'a>(results: &'a [CheckResult], name: &str) -> &'a CheckResult {
    results.iter().find(|result| result.name == name).unwrap()
}

#[test]
fn the_presets_four_checks_pass_on_an_atocore_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let atocore = AtoCore::started(&temp.path().join("ato"));
    let results = run(&preset(), Some(&atocore.url()), Duration::ZERO);
    let names: Vec<&str> = results.iter().map(|result| result.name.as_str()).collect();
    assert_eq!(names, ["healthy", "documents", "projects", "context"]);
    for result in &results {
        assert!(result.passed && result.attempts == 1, "{result:?}");
        assert_eq!(result.explanation, None);
    }
    assert!(
        named(&results, "documents")
            .found
            .contains("/documents is 12")
    );
}

/// Each row of the procedure's failure table that a check can show: what is wrong, the check that fails, what it
/// found, and the words of its explanation.
#[test]
fn each_failure_of_the_procedure_is_found_and_explained() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("ato");
    let atocore = AtoCore::started(&root);
    let only = |failing: &str, found: &str, explained: &str| {
        let results = run(&preset(), Some(&atocore.url()), Duration::ZERO);
        for result in &results {
            assert_eq!(result.passed, result.name != failing, "{results:?}");
        }
        let failed = named(&results, failing);
        assert!(failed.found.contains(found), "{failed:?}");
        let explanation = failed.explanation.as_deref().unwrap_or_default();
        assert!(explanation.contains(explained), "{failed:?}");
    };
    let sql = |text: &str| {
        let db = rusqlite::Connection::open(atocore.database()).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        db.execute_batch(text).unwrap();
    };
    sql("UPDATE source_documents SET path = '/data' || path");
    only(
        "documents",
        "/documents is 0, expected at least 1",
        "different deployment",
    );
    sql("UPDATE source_documents SET path = substr(path, 6)");

    let registry = root.join("config/project-registry.json");
    let whole = std::fs::read(&registry).unwrap();
    std::fs::write(&registry, "{\"projects\": [").unwrap();
    only("projects", "answered 500", "edited while the backup");
    std::fs::write(&registry, whole).unwrap();

    let vectors = rusqlite::Connection::open(root.join("data/chroma/chroma.sqlite3")).unwrap();
    vectors
        .execute_batch("UPDATE embeddings SET chunk = 'x' || chunk")
        .unwrap();
    only("context", "/chunks_used is 0", "does not fit the database");
    vectors
        .execute_batch("UPDATE embeddings SET chunk = substr(chunk, 2)")
        .unwrap();

    atocore.run("stop");
    let results = run(&preset(), Some(&atocore.url()), Duration::ZERO);
    let healthy = named(&results, "healthy");
    assert!(healthy.found.contains("refused"), "{healthy:?}");
    assert!(
        healthy.explanation.as_deref().unwrap().contains("chown"),
        "{healthy:?}"
    );
}

#[test]
fn a_service_that_needs_time_is_asked_again_and_all_checks_wait_together() {
    let temp = tempfile::tempdir().unwrap();
    let atocore = AtoCore::started(&temp.path().join("ato"));
    let url = atocore.url();
    atocore.run("stop");
    let started = Instant::now();
    let results = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            atocore.run("start");
        });
        run(&preset(), Some(&url), Duration::from_secs(30))
    });
    for result in &results {
        assert!(result.passed && result.attempts > 1, "{result:?}");
    }
    // One after the other they would take as many pauses.
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn without_an_answer_the_checks_end_with_their_patience() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = config("[[check]]\nname = \"a\"\nhttp = \"GET /\"\ntimeout = \"1s\"\n");
    let started = Instant::now();
    let results = run(&config, Some(&url), Duration::from_secs(4));
    assert!(
        !results[0].passed && results[0].attempts == 2,
        "{results:?}"
    );
    assert!(
        results[0].found.contains("no answer after 1 s"),
        "{results:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    let results = run(&config, None, Duration::ZERO);
    assert!(results[0].found.contains("`base_url`"), "{results:?}");
}

#[test]
fn an_answer_that_is_not_as_expected_is_quoted_and_a_redirect_is_not_followed() {
    let temp = tempfile::tempdir().unwrap();
    let atocore = AtoCore::started(&temp.path().join("ato"));
    let url = atocore.url();
    atocore.behave(&json!({ "redirect": format!("{url}/health") }));
    let config = config(
        "[[check]]\nname = \"moved\"\nhttp = \"POST /admin/backup\"\n\
         [[check]]\nname = \"missing\"\nhttp = \"GET /nothing\"\n\
         [[check]]\nname = \"expected\"\nhttp = \"GET /nothing\"\nexpect = { status = 404 }\n",
    );
    let results = run(&config, Some(&url), Duration::ZERO);
    let moved = named(&results, "moved");
    assert!(
        !moved.passed && moved.found.contains("not followed"),
        "{moved:?}"
    );
    let missing = named(&results, "missing");
    assert!(missing.found.contains("404, expected 200") && missing.found.contains("Not Found"));
    assert!(named(&results, "expected").passed);
    assert!(
        !atocore
            .requests()
            .iter()
            .any(|request| request.contains("/health"))
    );
}

#[test]
fn a_command_passes_by_its_exit_code_within_its_time_and_sees_no_credentials() {
    let config = config(
        "[[check]]\nname = \"good\"\ncommand = \"echo $SEALIFT_CHECK at $SEALIFT_BASE_URL\"\n\
         [[check]]\nname = \"bad\"\ncommand = \"echo why >&2; exit 7\"\nexplain = { \"eq:7\" = \"seven\" }\n\
         [[check]]\nname = \"slow\"\ncommand = [\"sleep\", \"60\"]\ntimeout = \"1s\"\n\
         [[check]]\nname = \"gone\"\ncommand = [\"/no/such/program\"]\n",
    );
    let started = Instant::now();
    let results = run(&config, Some("http://127.0.0.1:1"), Duration::ZERO);
    assert!(started.elapsed() < Duration::from_secs(20));
    let good = named(&results, "good");
    assert!(
        good.passed && good.found == "good at http://127.0.0.1:1",
        "{good:?}"
    );
    let bad = named(&results, "bad");
    assert!(!bad.passed && bad.found.contains("why"), "{bad:?}");
    assert_eq!(bad.explanation.as_deref(), Some("seven"));
    assert!(named(&results, "slow").found.contains("no end after 1 s"));
    assert!(named(&results, "gone").found.contains("cannot start"));
}
