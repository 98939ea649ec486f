//! Credentials that only push: they read no archive, delete nothing, overwrite nothing; some see nothing at all.

use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::files::files;
use crate::support::host::{Host, texts};
use crate::support::rsync::SshServer;
use crate::support::s3::{BUCKET, Hook, S3Server, error_answer};
use crate::support::tree::{describe, noise};

/// A bucket policy of `PutObject`, `ListBucket`, and `GetObject` on what is not an archive; and an object lock:
/// no put without a checksum, none over what is there.
fn locked_server(refused: Arc<AtomicU32>) -> S3Server {
    let hook: Hook = Arc::new(move |request| {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default();
        let below = |folder: &str| path.contains(&format!("/dalidou/{folder}/"));
        let small = ["manifests", "tables", "marks", "receipts"];
        let allowed = match request.method().as_str() {
            "GET" if query.contains("list-type=2") => true,
            "GET" | "HEAD" => small.into_iter().any(below),
            "PUT" => true,
            _ => false,
        };
        if !allowed {
            refused.fetch_add(1, Ordering::Relaxed);
            return Some(error_answer(403, "AccessDenied"));
        }
        let has = |name: &str| request.headers().contains_key(name);
        let is_put = request.method() == "PUT";
        if is_put && !has("x-amz-checksum-sha256") && !has("content-md5") {
            return Some(error_answer(400, "InvalidRequest"));
        }
        None
    });
    S3Server::start_with(hook)
}

fn with_s3(server: &S3Server) -> Host {
    let host = Host::new();
    let config = host.config();
    let start = config.find("[[target]]").unwrap();
    let end = config.find("\n# What stays").unwrap();
    let endpoint = server.endpoint();
    let target = format!(
        "[[target]]\nname = \"s3\"\nurl = \"s3://{BUCKET}/x\"\nendpoint = \"{endpoint}\"\nretry = \"1s\"\n"
    );
    let config = [&config[..start], &target, &config[end..]].concat();
    fs::write(host.path("c.toml"), config).unwrap();
    host
}

fn run(host: &Host, server: &S3Server, arguments: &[&str], conditions: &str) -> Output {
    let mut command = host.command(arguments);
    command.env("AWS_CONDITIONAL_PUT", conditions);
    server.output_of(&mut command)
}

fn restores_from_files(host: &Host, files: &std::path::Path, to: &str) {
    let from = files.display().to_string();
    let restore = ["restore", "latest", "--identity", "key.txt", "--to", to];
    let rest = ["--from", &from, "--signer", &host.signer];
    host.ok(&[&restore[..], &rest].concat());
    assert_eq!(
        describe(&host.path(to).join("data")),
        describe(&host.data())
    );
}

fn pushes_with_little(conditions: &str) {
    let refused = Arc::new(AtomicU32::new(0));
    let server = locked_server(refused.clone());
    let host = with_s3(&server);
    for day in 0..4 {
        fs::write(host.data().join(format!("f{day}")), noise(day, 300_000)).unwrap();
        let output = run(&host, &server, &["backup"], conditions);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{out}{err}");
        if day == 2 {
            // What a lost state directory needs is readable too.
            fs::remove_dir_all(host.path("c.state")).unwrap();
        }
    }
    restores_from_files(&host, &server.bucket_dir().join("x"), "out");
    let status = run(&host, &server, &["status"], conditions);
    assert!(status.status.success(), "{}", texts(&status).0);
}

#[test]
fn a_policy_that_reads_no_archive_and_a_lock_that_deletes_none_will_do() {
    pushes_with_little("etag");
}

#[test]
fn the_same_where_the_server_knows_no_conditions() {
    pushes_with_little("disabled");
}

#[test]
fn init_says_what_such_credentials_may_do() {
    let server = locked_server(Arc::default());
    let host = Host::new();
    fs::remove_file(host.path("c.toml")).unwrap();
    let (url, endpoint) = (format!("s3://{BUCKET}/x"), server.endpoint());
    let init = [
        "init",
        "--host",
        "dalidou",
        "--recipient",
        &host.recipient,
        "--target",
        &url,
        "--endpoint",
        &endpoint,
        "--tree",
        "data",
    ];
    let output = run(&host, &server, &init, "etag");
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(
        out.contains(
            "s3: can write, list and read manifests; cannot read archives or delete; dalidou/receipts/probe-"
        ),
        "{out}"
    );
}

/// A key that `rrsync` lets do nothing but write what is new.
struct Blind {
    server: SshServer,
    dir: tempfile::TempDir,
}

impl Blind {
    fn start() -> Option<Self> {
        let has_rrsync = std::process::Command::new("rrsync").arg("--help").output();
        if has_rrsync.is_err() {
            eprintln!("rrsync is not installed: not checked");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().display();
        let restriction = format!("restrict,command=\"rrsync -wo -no-overwrite -no-del {below}\" ");
        let server = SshServer::start(&restriction);
        Some(Self { server, dir })
    }

    fn url(&self) -> String {
        format!("rsync://root@127.0.0.1:{}/r", self.server.port())
    }

    fn host(&self) -> Host {
        let host = Host::new();
        let config = host.config();
        let start = config.find("[[target]]").unwrap();
        let end = config.find("\n# What stays").unwrap();
        let target = format!(
            "[[target]]\nname = \"laptop\"\nurl = \"{}\"\nssh = \"{}\"\nwrite_only = true\nretry = \"1s\"\n",
            self.url(),
            self.server.ssh()
        );
        let config = [&config[..start], &target, &config[end..]].concat();
        fs::write(host.path("c.toml"), config).unwrap();
        host
    }
}

#[test]
fn a_key_that_only_writes_and_overwrites_nothing_will_do() {
    let Some(blind) = Blind::start() else { return };
    let host = blind.host();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(err.contains("adopt --after"), "{err}");
    host.ok(&["adopt", "--after", "0"]);
    for day in 0..3 {
        fs::write(host.data().join(format!("f{day}")), noise(day, 300_000)).unwrap();
        let report = host.backup();
        let sent = report["targets"][0]["shipped_bytes"].as_u64().unwrap();
        assert!(
            sent < 400_000,
            "{sent} on day {day}: it goes by what it remembers"
        );
    }
    restores_from_files(&host, &blind.dir.path().join("r"), "out");
    let status = host.ok(&["status"]);
    assert!(status.contains("write-only"), "{status}");
    // The state directory is lost: no look at the target shows how far it had come.
    fs::remove_dir_all(host.path("c.state")).unwrap();
    let (_, err) = host.exits(&["backup"], 1);
    assert!(
        err.contains("adopt --after") && err.contains("laptop"),
        "{err}"
    );
    host.ok(&["adopt", "--after", "3"]);
    fs::write(host.data().join("later"), noise(9, 1000)).unwrap();
    assert_eq!(host.backup()["sequence"], 4);
    let repo = blind.dir.path().join("r").display().to_string();
    let restore = [
        "restore",
        "latest",
        "--identity",
        "key.txt",
        "--to",
        "later",
    ];
    let from = ["--from", &repo, "--signer", &host.signer];
    host.exits_any(&[&restore[..], &from].concat(), &[0, 3]);
    assert_eq!(
        describe(&host.path("later").join("data")),
        describe(&host.data())
    );
}

#[test]
fn a_key_that_only_writes_cannot_spoil_what_is_there() {
    let Some(blind) = Blind::start() else { return };
    let host = blind.host();
    host.ok(&["adopt", "--after", "0"]);
    fs::write(host.data().join("f"), noise(1, 100_000)).unwrap();
    host.backup();
    let repo = blind.dir.path().join("r");
    let before: Vec<_> = files(&repo)
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let target = sealift::storage::open_with(
        &sealift::storage::TargetSpec {
            ssh: Some(blind.server.ssh()),
            ..sealift::storage::TargetSpec::from_url(&blind.url())
        },
        &sealift::storage::Environment::default(),
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for path in files(&repo) {
        let key = path.strip_prefix(&repo).unwrap().display().to_string();
        let body = sealift::storage::Body::Bytes("spoilt".into());
        let put = target.put(&key, body, sealift::storage::PutMode::Replace);
        assert!(runtime.block_on(put).is_err(), "{key} seems to be replaced");
        assert!(
            runtime.block_on(target.delete(&key)).is_err(),
            "{key} seems to be deleted"
        );
    }
    let after: Vec<_> = files(&repo)
        .into_iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert_eq!(before, after);
}
