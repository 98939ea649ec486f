//! The AtoCore host's day: one backup to S3, a laptop over ssh and a folder, while the database is written to.

use std::fs;

use rusqlite::Connection;

use crate::support::host::{Host, texts};
use crate::support::rsync::SshServer;
use crate::support::s3::{BUCKET, S3Server};
use crate::support::tree::describe;

const SCHEMA: &str =
    "PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b TEXT);";

fn add_rows(host: &Host, database: &str, rows: u32) {
    let db = Connection::open(host.path(database)).unwrap();
    db.execute_batch(SCHEMA).unwrap();
    for row in 0..rows {
        let text = format!("{row}: {}", "what was said ".repeat(20));
        db.execute("INSERT INTO t(b) VALUES(?1)", [text]).unwrap();
    }
}

/// A small deployment below `ato`, as the preset expects it.
fn atocore() -> Host {
    let prepare = |host: &std::path::Path| {
        for dir in ["ato/data/db", "ato/config", "ato/data/chroma/0f"] {
            fs::create_dir_all(host.join(dir)).unwrap();
        }
        fs::write(
            host.join("ato/config/project-registry.json"),
            "{\"projects\": []}",
        )
        .unwrap();
        fs::write(host.join("ato/data/chroma/0f/data_level0.bin"), [7; 90_000]).unwrap();
    };
    let host = Host::prepared(prepare, &["--preset", "atocore", "--root", "ato"]);
    add_rows(&host, "ato/data/db/atocore.db", 500);
    add_rows(&host, "ato/data/chroma/chroma.sqlite3", 200);
    host
}

#[test]
fn the_hosts_day_leaves_three_places_that_restore_the_same() {
    let (host, server, laptop) = (atocore(), S3Server::start(), SshServer::start(""));
    let (url, ssh) = (laptop.url("/backups"), laptop.ssh());
    let targets = format!(
        "\n[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/atocore\"\nendpoint = \"{}\"\n\
         \n[[target]]\nname = \"laptop\"\nurl = \"{url}\"\nssh = \"{ssh}\"\n",
        server.endpoint()
    );
    fs::write(host.path("c.toml"), host.config() + &targets).unwrap();
    for day in 0..3 {
        add_rows(&host, "ato/data/db/atocore.db", 20);
        let writer = Connection::open(host.path("ato/data/db/atocore.db")).unwrap();
        // A transaction under way is no part of the day.
        writer
            .execute_batch("BEGIN; INSERT INTO t(b) VALUES('half-way')")
            .unwrap();
        let mut command = host.command(&["--json", "backup"]);
        if day == 2 {
            command.args(["--include", "chroma"]);
        }
        let output = server.output_of(&mut command);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{out}{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let published = report["targets"].as_array().unwrap();
        assert_eq!(published.len(), 3);
        assert!(
            published
                .iter()
                .all(|target| target["state"] == "published"),
            "{report}"
        );
    }
    let endpoint = server.endpoint();
    let places: [(&str, Vec<String>); 3] = [
        ("from-folder", vec![host.path("repo").display().to_string()]),
        (
            "from-laptop",
            vec![url.clone(), "--ssh".to_owned(), ssh.clone()],
        ),
        (
            "from-s3",
            vec![
                format!("s3://{BUCKET}/atocore"),
                "--endpoint".to_owned(),
                endpoint,
            ],
        ),
    ];
    for (to, from) in &places {
        let mut command = host.command(&["restore", "latest", "--identity", "key.txt", "--to", to]);
        command
            .args(["--signer", &host.signer, "--from"])
            .args(from);
        server.ok(&mut command);
    }
    let [one, two, three] = places.map(|(to, _)| describe(&host.path(to)));
    assert_eq!(one, two);
    assert_eq!(one, three);
    let db = Connection::open(host.path("from-laptop/db/atocore.db")).unwrap();
    let rows: u32 = db
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 500 + 3 * 20);
    assert!(host.path("from-s3/chroma/chroma.sqlite3").exists());
}

/// Chroma's files fit each other only while nothing writes: `init` says so, and each backup that takes them unguarded.
#[test]
fn a_vector_store_that_nothing_guards_is_named_by_init_and_by_each_backup() {
    let host = atocore();
    fs::remove_file(host.path("c.toml")).unwrap();
    let recipient = host.recipient.as_str();
    let init = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        recipient,
        "--target",
        "repo",
    ];
    let init = [&init[..], &["--preset", "atocore", "--root", "ato"]].concat();
    let (_, err) = host.exits(&init, 0);
    assert!(err.contains("With the vector store"), "{err}");
    for _ in 0..2 {
        let (_, err) = host.exits(&["--quiet", "backup", "--include", "chroma"], 0);
        assert!(
            err.contains("warning: chroma: programs could write there"),
            "{err}"
        );
        let (_, err) = host.exits(&["backup"], 0);
        assert!(!err.contains("programs could write there"), "{err}");
    }
}
