//! The source kind `atocore`: a running AtoCore makes the snapshot, which is believed only as far as it can be checked.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::atocore::AtoCore;
use crate::support::files::{files, names_in};
use crate::support::host::Host;

/// A host with an AtoCore below `ato`, which runs, and the preset.
fn host() -> (Host, AtoCore) {
    let mut atocore = None;
    let prepare = |dir: &std::path::Path| atocore = Some(AtoCore::started(&dir.join("ato")));
    let host = Host::prepared(prepare, &["--preset", "atocore", "--root", "ato"]);
    // The preset's owner of the database is of no use where that user does not exist.
    (host, atocore.unwrap())
}

/// Adds the source with the further keys.
fn ask(host: &Host, atocore: &AtoCore, keys: &str) {
    let table = format!(
        "\n[[source]]\nkind = \"atocore\"\nurl = \"{}\"\n{keys}",
        atocore.url()
    );
    let text = host.config();
    let base = text
        .split("\n[[source]]\nkind = \"atocore\"")
        .next()
        .unwrap();
    fs::write(host.path("c.toml"), format!("{base}{table}")).unwrap();
}

/// The files below `dir`: path and the hash of the content.
fn contents(dir: &std::path::Path) -> Vec<String> {
    let line = |path: &std::path::PathBuf| {
        let hash = blake3::hash(&fs::read(path).unwrap()).to_hex();
        format!(
            "{} {}",
            path.strip_prefix(dir).unwrap().display(),
            &hash[..12]
        )
    };
    // A restore writes a record of its own.
    let all = files(dir).into_iter();
    let all = all.filter(|path| !path.ends_with("restored.jsonl"));
    all.map(|path| line(&path)).collect()
}

fn stamps(atocore: &AtoCore) -> Vec<String> {
    names_in(&atocore.snapshots())
}

#[test]
fn atocores_snapshot_is_packed_where_it_is() {
    let (host, atocore) = host();
    ask(&host, &atocore, "");
    let (_, err) = host.exits(&["backup", "--tag", "nightly"], 0);
    let all = stamps(&atocore);
    assert_eq!(all.len(), 1, "{all:?}\n{err}");
    assert_eq!(atocore.requests().last().unwrap(), "POST /admin/backup");
    let made = atocore.snapshots().join(&all[0]);
    let restored = host.restore("latest", "restored");
    assert_eq!(contents(&restored), contents(&made));
    assert!(!restored.join("chroma").exists());
    let listed = host.remote_list();
    assert!(listed.to_string().contains(&all[0]), "{listed}");
    host.ok(&["validate"]);

    std::thread::sleep(Duration::from_millis(1100));
    host.exits(&["backup", "--include", "chroma"], 0);
    let restored = host.restore("latest", "with-chroma");
    let made = atocore.snapshots().join(stamps(&atocore).last().unwrap());
    assert!(made.join("chroma/chroma.sqlite3").exists());
    assert_eq!(contents(&restored), contents(&made));
    // `snapshot` asks as well, and prints AtoCore's own metadata.
    std::thread::sleep(Duration::from_millis(1100));
    let metadata = host.json(&["snapshot"]);
    assert_eq!(metadata["chroma_snapshot_included"], false);
    assert_eq!(stamps(&atocore).len(), 3);
}

#[test]
fn the_path_in_the_container_is_mapped_and_another_directory_is_copied_from() {
    let (host, atocore) = host();
    atocore.behave(&json!({ "container": "/app" }));
    ask(&host, &atocore, "fallback = \"fail\"\n");
    let (_, err) = host.exits(&["backup"], 1);
    for text in [
        "backup_root /app/backups/snapshots/",
        "is not here",
        "root_map",
    ] {
        assert!(err.contains(text), "{text}\n{err}");
    }
    let mapped = format!(
        "root_map = [\"/app:{}\"]\nfallback = \"fail\"\n",
        atocore.root.display()
    );
    ask(&host, &atocore, &mapped);
    std::thread::sleep(Duration::from_millis(1100));
    host.exits(&["backup"], 0);

    // The host keeps its snapshots elsewhere.
    let dir = atocore.snapshots().display().to_string();
    let elsewhere = host.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    host.edit_config(&dir, elsewhere.to_str().unwrap());
    std::thread::sleep(Duration::from_millis(1100));
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains("is not directly below") && err.contains("allow_root"),
        "{err}"
    );
    ask(
        &host,
        &atocore,
        &format!("{mapped}allow_root = \"{dir}\"\ninclude_chroma = true\n"),
    );
    std::thread::sleep(Duration::from_millis(1100));
    host.exits(&["backup"], 0);
    let copied = names_in(&elsewhere);
    assert_eq!(copied.len(), 1, "{copied:?}");
    let (copy, made) = (
        elsewhere.join(&copied[0]),
        atocore.snapshots().join(&copied[0]),
    );
    assert_eq!(contents(&copy), contents(&made));
    assert_eq!(
        contents(&host.restore("latest", "restored")),
        contents(&made)
    );
    // One that is not adopted is named, since nothing else deletes it there.
    atocore.behave(&json!({ "damage": "registry" }));
    std::thread::sleep(Duration::from_millis(1100));
    let (_, err) = host.exits(&["backup"], 1);
    let left = stamps(&atocore).pop().unwrap();
    assert!(err.contains(&format!("`rm -r {dir}/{left}`")), "{err}");
    assert!(err.contains(" kB)") || err.contains(" B)"), "{err}");
    assert_eq!(names_in(&elsewhere), copied);
}

/// Each thing that AtoCore can say or do wrong, with what is reported of it. Nothing of it is ever packed.
#[test]
fn what_atocore_claims_is_checked() {
    let (host, atocore) = host();
    ask(&host, &atocore, "fallback = \"fail\"\ntimeout = \"3s\"\n");
    let snapshots = atocore.snapshots();
    let soon = |seconds| {
        let time = chrono::Utc::now() + chrono::Duration::seconds(seconds);
        time.format("%Y%m%dT%H%M%SZ").to_string()
    };
    fs::create_dir(host.path("foreign")).unwrap();
    let link = soon(20);
    std::os::unix::fs::symlink(host.path("foreign"), snapshots.join(&link)).unwrap();
    let linked = snapshots.join(&link).display().to_string();
    fs::create_dir(snapshots.join("not-a-stamp")).unwrap();
    let future = soon(9999);
    fs::create_dir(snapshots.join(&future)).unwrap();
    let table: &[(Value, &str, &str)] = &[
        (
            json!({ "backup_root": "/etc/{stamp}" }),
            "is not directly below",
            "allow_root",
        ),
        (
            json!({ "backup_root": "{root}/backups/snapshots/../../../foreign" }),
            "is not an absolute path",
            "AtoCore's log",
        ),
        (
            json!({ "backup_root": "snapshots/{stamp}" }),
            "is not an absolute path",
            "log",
        ),
        (
            json!({ "backup_root": "{root}/backups/snapshots/not-a-stamp" }),
            "does not end with a stamp",
            "log",
        ),
        (
            json!({ "backup_root": "{root}/backups/snapshots/20990101T000000Z" }),
            "is not here",
            "root_map",
        ),
        (
            json!({ "backup_root": linked }),
            "is not a directory",
            "log",
        ),
        (
            json!({ "backup_root": format!("{}/{future}", snapshots.display()) }),
            "is of the future",
            "clocks",
        ),
        (json!({ "age": 90 }), "is older than the request", "clocks"),
        (
            json!({ "age": 90 }),
            "is older than the request",
            "sealift prune --local --forget 20",
        ),
        (
            json!({ "damage": "db" }),
            "db_integrity_check_failed",
            "suspect the disk",
        ),
        (
            json!({ "damage": "registry" }),
            "registry_invalid_json",
            "back up again",
        ),
        (
            json!({ "answer": "<html>hello</html>" }),
            "is not JSON",
            "`url`",
        ),
        (json!({ "answer": "{}" }), "names no backup_root", "`url`"),
        (
            json!({ "answer": "{\"backup_root\": 7}" }),
            "names no backup_root",
            "`url`",
        ),
        (
            json!({ "redirect": "http://127.0.0.1:1/x" }),
            "answered 307, a redirect to http://127.0.0.1:1/x",
            "not followed",
        ),
        (
            json!({ "token": "x" }),
            "answered 401: not authorised",
            "token_file",
        ),
        (json!({ "status": 500 }), "answered 500", "log"),
        (
            json!({ "status": 409 }),
            "AtoCore answered 409: ingestion is running; nothing was copied",
            "when the ingestion has ended",
        ),
        (json!({ "hang": 20 }), "no answer after 3 s", "`timeout`"),
    ];
    for (how, cause, next) in table {
        atocore.behave(how);
        // Each of AtoCore's snapshots has a stamp of its own.
        std::thread::sleep(Duration::from_millis(1100));
        let started = Instant::now();
        let (_, err) = host.exits(&["backup"], 1);
        assert!(err.contains(cause) && err.contains(next), "{how}\n{err}");
        assert!(started.elapsed() < Duration::from_secs(15), "{how}");
        assert!(
            !host.path("repo/dalidou/manifests").exists(),
            "{how}: something was packed"
        );
    }
    let kept = stamps(&atocore);
    let invalid = kept.iter().filter(|name| name.starts_with("invalid-"));
    assert_eq!(invalid.count(), 2, "{kept:?}");
    // Its clock may be some seconds behind.
    atocore.behave(&json!({ "age": 3 }));
    host.exits(&["backup"], 0);
    atocore.behave(&json!({}));
    atocore.run("stop");
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains("did not answer") && err.contains("refused"),
        "{err}"
    );
}

#[test]
fn a_snapshot_waits_for_the_ingestion() {
    let (host, atocore) = host();
    ask(&host, &atocore, "fallback = \"fail\"\ntimeout = \"1m\"\n");
    atocore.behave(&json!({ "status": 409, "times": 1 }));
    host.exits(&["backup"], 0);
    let asked = atocore.requests();
    let asked = asked
        .iter()
        .filter(|request| *request == "POST /admin/backup");
    assert_eq!(asked.count(), 2);
}

#[test]
fn a_token_is_sent() {
    let (host, atocore) = host();
    fs::write(host.path("token"), "sesame\n").unwrap();
    atocore.behave(&json!({ "token": "sesame" }));
    ask(
        &host,
        &atocore,
        "fallback = \"fail\"\ntoken_file = \"token\"\n",
    );
    // A proxy has no part in a request to this machine.
    let mut command = host.command(&["backup"]);
    let output = command
        .env("http_proxy", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{:?}",
        crate::support::host::texts(&output)
    );
    fs::remove_file(host.path("token")).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains("token file") && err.contains("token_file"),
        "{err}"
    );
}

/// The host copies the data itself, says why, and leaves the vector store alone unless something holds AtoCore still.
#[test]
fn without_atocore_the_host_copies_itself_and_the_run_is_partial() {
    let (host, atocore) = host();
    // As an ordinary user the preset's owner cannot be set; a note says so.
    ask(&host, &atocore, "");
    atocore.run("stop");
    let (_, err) = host.exits(&["backup"], 3);
    for text in [
        "by this host and not by AtoCore",
        "did not answer",
        "check that AtoCore runs",
    ] {
        assert!(err.contains(text), "{text}\n{err}");
    }
    let restored = host.restore_exits("latest", "own", &[0, 3]);
    assert!(restored.join("db/atocore.db").exists() && !restored.join("chroma").exists());
    assert!(restored.join("config/project-registry.json").exists());

    std::thread::sleep(Duration::from_millis(1100));
    let (_, err) = host.exits(&["backup", "--include", "chroma"], 3);
    assert!(err.contains("nothing holds it still"), "{err}");
    let restored = host.restore_exits("latest", "unguarded", &[0, 3]);
    assert!(!restored.join("chroma").exists());

    let text = host.config();
    let chroma = format!(
        "\n[[source]]\nkind = \"tree\"\npath = \"{}/data/chroma\"\nto = \"chroma\"\non_request = true\nbefore = \"true\"\n",
        atocore.root.display()
    );
    fs::write(host.path("c.toml"), text + &chroma).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    host.exits(&["backup", "--include", "chroma"], 3);
    let restored = host.restore_exits("latest", "guarded", &[0, 3]);
    assert!(restored.join("chroma/chroma.sqlite3").exists());
}

/// AtoCore was asked for its vector store, and its snapshot has none: the snapshot counts, and says what it lacks.
#[test]
fn a_snapshot_without_the_requested_vector_store_is_partial() {
    let (host, atocore) = host();
    ask(
        &host,
        &atocore,
        "include_chroma = true\nfallback = \"fail\"\n",
    );
    atocore.behave(&json!({ "damage": "chroma" }));
    let (_, err) = host.exits(&["backup"], 3);
    assert!(
        err.contains("was asked for it, and its snapshot has none"),
        "{err}"
    );
    let restored = host.restore_exits("latest", "restored", &[0, 3]);
    assert!(restored.join("db/atocore.db").exists());
}

#[test]
fn a_check_of_the_configuration_names_a_token_and_directories_that_are_missing() {
    let (host, atocore) = host();
    let keys = "token_file = \"token\"\nroot_map = [\"/app:/nowhere/at/all\"]\nallow_root = \"/nowhere/else\"\n";
    ask(&host, &atocore, keys);
    let (out, _) = host.exits(&["config", "check"], 3);
    for text in [
        "source atocore: the token file",
        "root_map: /nowhere/at/all is not a directory",
        "allow_root: /nowhere/else is not a directory",
        "check healthy: the token file",
    ] {
        assert!(out.contains(text), "{text}\n{out}");
    }
    fs::write(host.path("token"), "sesame").unwrap();
    crate::support::files::set_mode(&host.path("token"), 0o644);
    let (out, _) = host.exits(&["config", "check"], 3);
    assert!(out.contains("other users can read the token"), "{out}");
}

#[test]
fn a_source_that_asks_atocore_is_listed_and_shown_before_a_backup() {
    let (host, atocore) = host();
    ask(&host, &atocore, "");
    let (out, _) = host.exits(&["source", "list"], 0);
    assert!(
        out.contains("atocore") && out.contains(&atocore.url()),
        "{out}"
    );
    let (_, err) = host.exits(&["backup", "--dry-run"], 0);
    assert!(err.contains("is asked to copy db"), "{err}");
    assert_eq!(
        atocore
            .requests()
            .iter()
            .filter(|one| one.starts_with("POST"))
            .count(),
        0
    );
    host.ok(&["source", "remove", "atocore"]);
    assert!(!host.config().contains("kind = \"atocore\""));
}
