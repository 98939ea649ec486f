//! What every target promises, checked over each that can run here: a folder, memory, a real S3
//! server, the same server taken for one that ignores conditional puts, rsync and sftp over a real sshd, and a real
//! rsync daemon.
//!
//! No WebDAV server is among the dev-dependencies: start one and run the ignored tests of this module with its URL
//! in `SEALIFT_TEST_WEBDAV_URL` (`wsgidav --auth=anonymous --root=DIR` will do). GCS and Azure need
//! accounts, and are not covered.

mod classes;
mod endless;
mod error_texts;
mod metered;
mod publish;
mod sftp;
mod ssh;
mod thaw;
mod throttle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use sealift::repository;
use sealift::storage::{
    Body, Environment, ErrorKind, PutMode, PutOutcome, Storage, TargetSpec, open_with,
};

use crate::support::block_on;
use crate::support::proxy;
use crate::support::rsync::{RsyncDaemon, SshServer};
use crate::support::s3::S3Server;
use crate::support::tree::noise;

/// A target and what keeps it alive.
struct Backend {
    target: Arc<dyn Storage>,
    _folder: Option<tempfile::TempDir>,
    _server: Option<S3Server>,
    _other: Option<Box<dyn std::any::Any>>,
}

fn folder() -> Backend {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/deep/er", dir.path().display());
    Backend {
        target: open_with(&TargetSpec::from_url(&url), &Environment::default()).unwrap(),
        _folder: Some(dir),
        _server: None,
        _other: None,
    }
}

fn memory() -> Backend {
    let spec = TargetSpec::from_url("memory://");
    Backend {
        target: open_with(&spec, &Environment::default()).unwrap(),
        _folder: None,
        _server: None,
        _other: None,
    }
}

fn s3_with(extra: &[(&str, &str)], prefix: &str) -> Backend {
    let server = S3Server::start();
    let variables = server.variables().into_iter().chain(extra.iter().copied());
    let environment = Environment::from_pairs(variables);
    Backend {
        target: open_with(&server.spec(prefix), &environment).unwrap(),
        _folder: None,
        _server: Some(server),
        _other: None,
    }
}

fn s3_server() -> Backend {
    s3_with(&[], "some/prefix")
}

fn s3_without_conditions() -> Backend {
    s3_with(&[("AWS_CONDITIONAL_PUT", "disabled")], "")
}

fn over(spec: &TargetSpec, server: impl std::any::Any) -> Backend {
    Backend {
        target: open_with(spec, &Environment::default()).unwrap(),
        _folder: None,
        _server: None,
        _other: Some(Box::new(server)),
    }
}

fn rsync_over_ssh() -> Backend {
    let server = SshServer::start("");
    over(&server.spec("/deep/er"), server)
}

fn sftp_over_ssh() -> Backend {
    let server = SshServer::start("");
    over(&server.sftp_spec("/deep/er"), server)
}

/// Only what the protocol itself has: no hard links, no renaming over what is there, no flushing, small pieces.
fn sftp_without_extensions() -> Backend {
    let lines = "Subsystem sftp internal-sftp -P hardlink,posix-rename,fsync,limits\n";
    let server = SshServer::configured("", lines);
    over(&server.sftp_spec("/deep/er"), server)
}

fn rsync_daemon() -> Backend {
    let daemon = RsyncDaemon::start();
    over(&daemon.spec("/deep/er"), daemon)
}

/// A fresh folder on a server that was started for this test.
fn webdav() -> Backend {
    let url = std::env::var("SEALIFT_TEST_WEBDAV_URL").expect("SEALIFT_TEST_WEBDAV_URL is not set");
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let url = format!("{url}/deep/er/{}", sealift::base::ids::hex(&random));
    Backend {
        target: open_with(&TargetSpec::from_url(&url), &Environment::default()).unwrap(),
        _folder: None,
        _server: None,
        _other: None,
    }
}

macro_rules! contract {
    ($($check:ident),* $(,)?) => {
        contract!(@backend folder [] { $($check)* });
        contract!(@backend memory [] { $($check)* });
        contract!(@backend s3_server [] { $($check)* });
        contract!(@backend s3_without_conditions [] { $($check)* });
        contract!(@backend rsync_over_ssh [] { $($check)* });
        contract!(@backend sftp_over_ssh [] { $($check)* });
        contract!(@backend sftp_without_extensions [] { $($check)* });
        contract!(@backend rsync_daemon [] { $($check)* });
        contract!(@backend webdav [#[ignore = "needs a WebDAV server"]] { $($check)* });
    };
    (@backend $backend:ident $attributes:tt { $($check:ident)* }) => {
        mod $backend {
            $(contract!(@check $backend $check $attributes);)*
        }
    };
    (@check $backend:ident $check:ident [$($attribute:tt)*]) => {
        #[test]
        $($attribute)*
        fn $check() {
            let backend = super::$backend();
            super::block_on(super::$check(backend.target.clone()));
        }
    };
}

contract![
    round_trip,
    create_never_overwrites,
    replace_overwrites,
    lists_what_is_below,
    a_listing_from_a_key_is_the_tail_of_the_whole_listing,
    reads_ranges,
    streams_from_anywhere,
    get_has_a_limit,
    delete_is_idempotent,
    what_is_not_there_is_not_found,
    odd_names_survive,
    foreign_names_are_refused,
    large_files_survive,
    concurrent_puts_of_one_key,
    hosts_are_listed,
];

fn text(text: &str) -> Body {
    Body::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

async fn put(target: &Arc<dyn Storage>, key: &str, content: &str) {
    let put = target.put(key, text(content), PutMode::Create).await;
    assert_eq!(put.unwrap(), PutOutcome::Written, "{key}");
}

async fn stream_all(target: &Arc<dyn Storage>, key: &str, offset: u64) -> Vec<u8> {
    let mut stream = target.stream(key, offset).await.unwrap();
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    all
}

async fn keys(target: &Arc<dyn Storage>, prefix: &str) -> Vec<String> {
    let listed = target.list(prefix).await.unwrap();
    let mut keys: Vec<String> = listed.into_iter().map(|l| l.key).collect();
    keys.sort();
    keys
}

async fn round_trip(target: Arc<dyn Storage>) {
    put(&target, "h/a/x", "content").await;
    put(&target, "h/a/empty", "").await;
    put(&target, "top", "t").await;
    assert_eq!(target.get("h/a/x", 100).await.unwrap(), "content");
    assert_eq!(target.get("h/a/empty", 100).await.unwrap(), "");
    assert_eq!(target.get("top", 1).await.unwrap(), "t");
    assert_eq!(stream_all(&target, "h/a/empty", 0).await, b"");
}

async fn create_never_overwrites(target: Arc<dyn Storage>) {
    put(&target, "h/x", "first!").await;
    let again = target.put("h/x", text("second"), PutMode::Create).await;
    assert_eq!(again.unwrap(), PutOutcome::Existed);
    assert_eq!(target.get("h/x", 100).await.unwrap(), "first!");
}

async fn replace_overwrites(target: Arc<dyn Storage>) {
    put(&target, "h/x", "damaged").await;
    for content in ["right", "a longer one than that"] {
        let replaced = target.put("h/x", text(content), PutMode::Replace).await;
        assert_eq!(replaced.unwrap(), PutOutcome::Written);
        assert_eq!(target.get("h/x", 100).await.unwrap(), content);
    }
    let new = target.put("h/y", text("new"), PutMode::Replace).await;
    assert_eq!(new.unwrap(), PutOutcome::Written);
}

async fn lists_what_is_below(target: Arc<dyn Storage>) {
    assert_eq!(target.list("").await.unwrap(), []);
    assert_eq!(target.list("nobody/archives/").await.unwrap(), []);
    for key in ["h/a/aa/1", "h/a/bb/22", "h/a/top", "h/ab/x", "h/b", "g/a/z"] {
        put(&target, key, key).await;
    }
    assert_eq!(
        keys(&target, "h/a/").await,
        ["h/a/aa/1", "h/a/bb/22", "h/a/top"]
    );
    assert_eq!(keys(&target, "h/a/aa/").await, ["h/a/aa/1"]);
    assert_eq!(keys(&target, "h/").await.len(), 5);
    assert_eq!(keys(&target, "").await.len(), 6);
    assert_eq!(keys(&target, "h/c/").await.len(), 0);
    let listed = target.list("h/a/bb/").await.unwrap();
    assert_eq!(listed[0].bytes, "h/a/bb/22".len() as u64);
    assert!(target.list("h/a").await.is_err(), "a prefix is a folder");
}

async fn a_listing_from_a_key_is_the_tail_of_the_whole_listing(target: Arc<dyn Storage>) {
    let stored = ["h/a/1/x", "h/a/2", "h/a/21", "h/a/3", "h/b"];
    for key in stored {
        put(&target, key, key).await;
    }
    for from in [
        "", "h/a/", "h/a/1", "h/a/2", "h/a/20", "h/a/21", "h/a/4", "h/b", "z",
    ] {
        let mut tail = target.list_keys_from("h/", from).await.unwrap();
        tail.sort();
        let expected: Vec<&str> = stored.into_iter().filter(|key| *key >= from).collect();
        assert_eq!(tail, expected, "{from}");
    }
    assert!(
        target
            .list_keys_from("nobody/", "nobody/x")
            .await
            .unwrap()
            .is_empty()
    );
}

async fn reads_ranges(target: Arc<dyn Storage>) {
    put(&target, "h/x", "0123456789").await;
    let range = |range| target.get_range("h/x", range);
    assert_eq!(range(0..10).await.unwrap(), "0123456789");
    assert_eq!(range(3..5).await.unwrap(), "34");
    assert_eq!(range(9..10).await.unwrap(), "9");
    assert_eq!(range(4..4).await.unwrap(), "");
    assert_eq!(range(10..10).await.unwrap(), "");
    for beyond in [0..11, 5..20, 10..11, 11..11, 100..200] {
        let error = range(beyond.clone()).await.expect_err("beyond the end");
        assert_eq!(error.kind, ErrorKind::Permanent, "{beyond:?}: {error:?}");
    }
    let missing = target.get_range("h/y", 0..1).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

async fn streams_from_anywhere(target: Arc<dyn Storage>) {
    let content = noise(7, 3_500_000);
    let body = Body::Bytes(content.clone().into());
    target.put("h/x", body, PutMode::Create).await.unwrap();
    for offset in [0, 1, 1_048_576, 3_499_999, 3_500_000] {
        let got = stream_all(&target, "h/x", offset).await;
        assert!(got == content[offset as usize..], "from {offset}");
    }
    let beyond = target
        .stream("h/x", 3_500_001)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(beyond.kind, ErrorKind::Permanent);
}

async fn get_has_a_limit(target: Arc<dyn Storage>) {
    put(&target, "h/x", "12345").await;
    assert_eq!(target.get("h/x", 5).await.unwrap(), "12345");
    let error = target.get("h/x", 4).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(error.source.to_string().contains("5 bytes"));
}

async fn delete_is_idempotent(target: Arc<dyn Storage>) {
    put(&target, "h/a/x", "x").await;
    target.delete("h/a/x").await.unwrap();
    assert_eq!(keys(&target, "").await.len(), 0);
    target.delete("h/a/x").await.unwrap();
    target.delete("nobody/x").await.unwrap();
    put(&target, "h/a/x", "again").await;
}

async fn what_is_not_there_is_not_found(target: Arc<dyn Storage>) {
    put(&target, "h/here", "x").await;
    for key in ["h/x", "nobody/a/b/c"] {
        let errors = [
            target.get(key, 10).await.unwrap_err(),
            target.stream(key, 0).await.map(|_| ()).unwrap_err(),
            target.stream(key, 5).await.map(|_| ()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("cannot get {key} on ")), "{text}");
        }
    }
}

async fn odd_names_survive(target: Arc<dyn Storage>) {
    let long = format!("h/{}", "n".repeat(100));
    let odd = [
        "h/a+b=c@d~e,f",
        "h/-dash",
        "h/UPPER_lower.x..y",
        "h/x.tmp",
        &long,
    ];
    let odd: Vec<&str> = odd.into_iter().filter(|key| !key.contains('#')).collect();
    for key in &odd {
        put(&target, key, key).await;
    }
    for key in &odd {
        assert_eq!(target.get(key, 1000).await.unwrap(), *key);
    }
    let mut expected = odd;
    expected.sort();
    assert_eq!(keys(&target, "h/").await, expected);
}

async fn foreign_names_are_refused(target: Arc<dyn Storage>) {
    for key in [
        "",
        "/x",
        "../x",
        "h/../../x",
        "h//x",
        "h/",
        "h/.tmp/x",
        "h/a b",
        "h/ü",
    ] {
        let put = target.put(key, text("x"), PutMode::Replace).await;
        assert_eq!(put.unwrap_err().kind, ErrorKind::Permanent, "{key}");
        assert_eq!(
            target.get(key, 9).await.unwrap_err().kind,
            ErrorKind::Permanent
        );
        assert!(target.delete(key).await.is_err());
    }
    assert_eq!(keys(&target, "").await.len(), 0);
}

async fn large_files_survive(target: Arc<dyn Storage>) {
    let content = noise(3, 20_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    let body = Body::File(file.path().to_owned());
    for expected in [PutOutcome::Written, PutOutcome::Existed] {
        let put = target.put("h/big", body.clone(), PutMode::Create).await;
        assert_eq!(put.unwrap(), expected);
    }
    assert_eq!(target.list("h/").await.unwrap()[0].bytes, 20_000_000);
    assert!(stream_all(&target, "h/big", 0).await == content);
    let range = target
        .get_range("h/big", 9_999_990..10_000_010)
        .await
        .unwrap();
    assert!(range == content[9_999_990..10_000_010]);
    let missing = Body::File("/nonexistent/file".into());
    assert!(
        target
            .put("h/none", missing, PutMode::Create)
            .await
            .is_err()
    );
    assert_eq!(keys(&target, "h/").await, ["h/big"]);
}

async fn concurrent_puts_of_one_key(target: Arc<dyn Storage>) {
    let content = Bytes::from(noise(5, 300_000));
    let puts = (0..8).map(|_| {
        let body = Body::Bytes(content.clone());
        target.put("h/new/folder/x", body, PutMode::Create)
    });
    let outcomes = futures::future::join_all(puts).await;
    let written = outcomes
        .iter()
        .filter(|o| *o.as_ref().unwrap() == PutOutcome::Written);
    assert!(written.count() >= 1);
    assert!(target.get("h/new/folder/x", 1 << 20).await.unwrap() == content);
    assert_eq!(keys(&target, "").await, ["h/new/folder/x"]);
}

async fn hosts_are_listed(target: Arc<dyn Storage>) {
    assert_eq!(target.list_folders().await.unwrap(), [""; 0]);
    assert_eq!(repository::hosts(&target).await.unwrap(), []);
    let manifest = "manifests/00000001-20260407T060000Z-0123456789abcdef.json";
    put(&target, &format!("zeta/{manifest}"), "{}").await;
    put(&target, &format!("alpha/{manifest}"), "{}").await;
    put(&target, "no-backups/archives/x", "x").await;
    put(&target, "+not-a-host/manifests/x", "x").await;
    put(&target, "a-file", "x").await;
    let folders = ["+not-a-host", "alpha", "no-backups", "zeta"];
    assert_eq!(target.list_folders().await.unwrap(), folders);
    let hosts = repository::hosts(&target).await.unwrap();
    let hosts: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    assert_eq!(hosts, ["alpha", "zeta"]);
}

// What only a network can do.

#[test]
fn wrong_credentials_are_denied_at_once() {
    let server = S3Server::start();
    let began = Instant::now();
    let cases = [
        (server.access_key.as_str(), "wrong"),
        ("unknown", server.secret_key.as_str()),
    ];
    for (id, secret) in cases {
        let pairs = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)];
        let target = open_with(&server.spec(""), &Environment::from_pairs(pairs)).unwrap();
        let errors = block_on(async {
            [
                target
                    .put("h/x", text("x"), PutMode::Create)
                    .await
                    .unwrap_err(),
                target.get("h/x", 10).await.unwrap_err(),
                target.list("h/").await.unwrap_err(),
            ]
        });
        for error in errors {
            assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
            assert!(!format!("{error:?}").contains(secret));
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

fn impatient(endpoint: String) -> Arc<dyn Storage> {
    let spec = TargetSpec {
        endpoint: Some(endpoint),
        timeout_seconds: Some(1),
        retry_seconds: Some(1),
        ..TargetSpec::from_url("s3://bucket/prefix")
    };
    let pairs = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    open_with(&spec, &Environment::from_pairs(pairs)).unwrap()
}

fn assert_unavailable_soon(target: &Arc<dyn Storage>) {
    let began = Instant::now();
    let errors = block_on(async {
        [
            target.get("h/x", 10).await.unwrap_err(),
            target
                .put("h/x", text("x"), PutMode::Create)
                .await
                .unwrap_err(),
            target.list("h/").await.unwrap_err(),
            target.stream("h/x", 0).await.map(|_| ()).unwrap_err(),
        ]
    });
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_dead_port_is_unavailable_in_bounded_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_unavailable_soon(&impatient(format!("http://{address}")));
}

#[test]
fn a_server_that_never_answers_is_unavailable_in_bounded_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_unavailable_soon(&impatient(format!("http://{address}")));
    drop(listener);
}

/// The server behind a proxy that cuts answers, and no retries by the library beneath.
fn behind_proxy(server: &S3Server, cut: proxy::Cut) -> Arc<dyn Storage> {
    let spec = TargetSpec {
        endpoint: Some(format!("http://{}", proxy::start(server.address, cut))),
        retry_seconds: Some(0),
        ..server.spec("")
    };
    open_with(&spec, &server.environment()).unwrap()
}

#[test]
fn a_body_that_breaks_off_is_resumed() {
    let server = S3Server::start();
    let content = noise(11, 12_000_000);
    std::fs::create_dir(server.bucket_dir().join("h")).unwrap();
    std::fs::write(server.bucket_dir().join("h/x"), &content).unwrap();
    let target = behind_proxy(&server, Arc::new(|_| Some(2_500_000)));
    block_on(async {
        assert!(stream_all(&target, "h/x", 0).await == content);
        assert!(stream_all(&target, "h/x", 777).await == content[777..]);
        assert!(target.get("h/x", 1 << 30).await.unwrap() == content);
        let range = target.get_range("h/x", 5..9_000_000).await.unwrap();
        assert!(range == content[5..9_000_000]);
    });
}

#[test]
fn a_body_that_breaks_off_again_and_again_is_an_error() {
    let server = S3Server::start();
    std::fs::create_dir(server.bucket_dir().join("h")).unwrap();
    std::fs::write(server.bucket_dir().join("h/x"), noise(1, 12_000_000)).unwrap();
    let target = behind_proxy(&server, Arc::new(|_| Some(100_000)));
    let error = block_on(async {
        let mut stream = target.stream("h/x", 0).await.unwrap();
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("a short body passed for a whole one"),
            }
        }
    });
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
}

#[test]
fn a_put_whose_answer_is_lost_succeeds() {
    let server = S3Server::start();
    let target = behind_proxy(&server, Arc::new(|number| (number < 2).then_some(0)));
    block_on(async {
        let put = target.put("h/x", text("content"), PutMode::Create).await;
        assert_eq!(put.unwrap(), PutOutcome::Existed);
        assert_eq!(target.get("h/x", 100).await.unwrap(), "content");
    });
}

#[test]
fn a_file_too_large_for_one_put_goes_up_in_parts() {
    let Backend {
        target, _server, ..
    } = s3_server();
    let file = tempfile::NamedTempFile::new().unwrap();
    let (head, tail) = (noise(1, 1_000_000), noise(2, 1_000_000));
    std::fs::write(file.path(), &head).unwrap();
    let bytes = (100 << 20) + 17;
    file.as_file().set_len(bytes - 1_000_000).unwrap();
    let mut appended = std::fs::OpenOptions::new()
        .append(true)
        .open(file.path())
        .unwrap();
    std::io::Write::write_all(&mut appended, &tail).unwrap();
    block_on(async {
        for (mode, expected) in [
            (PutMode::Create, PutOutcome::Written),
            (PutMode::Create, PutOutcome::Existed),
        ] {
            let body = Body::File(file.path().to_owned());
            assert_eq!(target.put("h/x", body, mode).await.unwrap(), expected);
        }
        assert_eq!(target.list("h/").await.unwrap()[0].bytes, bytes);
        let got = target.get_range("h/x", 0..1_000_000).await.unwrap();
        assert!(got == head);
        let got = target
            .get_range("h/x", bytes - 1_000_000..bytes)
            .await
            .unwrap();
        assert!(got == tail);
    });
}
