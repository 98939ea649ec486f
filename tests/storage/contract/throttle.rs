//! Limits of bytes per second: kept by one transfer and by many, both ways, and without chunks or deadlines
//! getting in their way.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealift::base::rate_schedule::Timetable;
use sealift::storage::{Body, Environment, PutMode, Storage, TargetSpec, open_with};

use super::{block_on, noise, stream_all};
use crate::support::s3::S3Server;

const RATE: u64 = 2_000_000;
const BYTES: usize = 4_000_000;

fn limited(spec: TargetSpec) -> TargetSpec {
    TargetSpec {
        upload: Some(Timetable::constant(RATE)),
        download: Some(Timetable::constant(RATE)),
        ..spec
    }
}

async fn put(target: &Arc<dyn Storage>, key: &str, body: Body) {
    target.put(key, body, PutMode::Create).await.unwrap();
}

fn assert_at_rate(began: Instant, what: &str) {
    let took = began.elapsed().as_secs_f64();
    assert!((1.8..4.0).contains(&took), "{what} took {took:.2} s");
}

/// 4 MB each way in some two seconds, as one transfer and as four.
async fn keeps_to_the_rate(target: Arc<dyn Storage>) {
    let content = noise(1, BYTES);
    let began = Instant::now();
    put(&target, "h/one", Body::Bytes(content.clone().into())).await;
    assert_at_rate(began, "a put");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content[..BYTES / 4]).unwrap();
    let keys = ["h/a", "h/b", "h/c", "h/d"];
    let puts = keys.map(|key| put(&target, key, Body::File(file.path().to_owned())));
    let began = Instant::now();
    futures::future::join_all(puts).await;
    assert_at_rate(began, "four puts");

    let began = Instant::now();
    assert!(stream_all(&target, "h/one", 0).await == content);
    assert_at_rate(began, "a stream");

    let quarter = (BYTES / 4) as u64;
    let began = Instant::now();
    let ranges = (0..4).map(|n| target.get_range("h/one", n * quarter..(n + 1) * quarter));
    let got: Vec<Bytes> = futures::future::try_join_all(ranges).await.unwrap();
    assert!(got.concat() == content);
    assert_at_rate(began, "four ranges");
}

#[test]
fn a_store_keeps_to_the_rate() {
    let server = S3Server::start();
    let spec = limited(server.spec("x"));
    block_on(keeps_to_the_rate(
        open_with(&spec, &server.environment()).unwrap(),
    ));
}

#[test]
fn a_folder_keeps_to_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let spec = limited(TargetSpec::from_url(&dir.path().display().to_string()));
    block_on(keeps_to_the_rate(
        open_with(&spec, &Environment::default()).unwrap(),
    ));
}

#[test]
fn without_a_limit_nothing_waits() {
    let server = S3Server::start();
    let target = open_with(&server.spec("x"), &server.environment()).unwrap();
    let content = noise(1, BYTES);
    let began = Instant::now();
    block_on(async {
        put(&target, "h/x", Body::Bytes(content.clone().into())).await;
        assert!(stream_all(&target, "h/x", 0).await == content);
    });
    assert!(began.elapsed() < Duration::from_millis(1800));
}

/// Each way may have a limit of its own.
#[test]
fn the_other_way_is_not_slowed_down() {
    let server = S3Server::start();
    let spec = TargetSpec {
        download: None,
        ..limited(server.spec("x"))
    };
    let target = open_with(&spec, &server.environment()).unwrap();
    block_on(async {
        put(&target, "h/x", Body::Bytes(noise(1, 1_000_000).into())).await;
        let began = Instant::now();
        for _ in 0..4 {
            stream_all(&target, "h/x", 0).await;
        }
        assert!(began.elapsed() < Duration::from_millis(1200));
    });
}

/// Parts of a large file, a put and a request without a body: the length is said, and the payload's
/// signature holds, which the server checks.
#[test]
fn nothing_is_sent_chunked() {
    type Head = (String, Option<String>, bool, String);
    let seen: Arc<Mutex<Vec<Head>>> = Arc::default();
    let record = seen.clone();
    let server = S3Server::start_with(Arc::new(move |request| {
        let header = |name: &str| {
            let value = request.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let head = (
            request.method().to_string(),
            header("content-length"),
            header("transfer-encoding").is_some(),
            header("x-amz-content-sha256").unwrap_or_default(),
        );
        record.lock().unwrap().push(head);
        None
    }));
    let spec = TargetSpec {
        upload: Some(Timetable::constant(1_000_000_000)),
        ..server.spec("x")
    };
    let target = open_with(&spec, &server.environment()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((100 << 20) + 17).unwrap();
    let content = noise(1, 1_000_000);
    block_on(async {
        put(&target, "h/empty", Body::Bytes(Bytes::new())).await;
        put(&target, "h/x", Body::Bytes(content.clone().into())).await;
        put(&target, "h/large", Body::File(file.path().to_owned())).await;
        assert!(stream_all(&target, "h/x", 0).await == content);
    });
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(.., chunked, _)| !chunked), "{seen:?}");
    let puts = || seen.iter().filter(|(method, ..)| method == "PUT");
    assert!(puts().all(|(.., sha256)| sha256.len() == 64), "{seen:?}");
    let mut sizes: Vec<u64> = puts()
        .map(|(_, length, ..)| length.as_ref().unwrap().parse().unwrap())
        .collect();
    sizes.sort();
    assert_eq!(sizes[..2], [0, 1_000_000], "{sizes:?}");
    assert_eq!(sizes[2..].iter().sum::<u64>(), (100 << 20) + 17);
}

/// What is slow because it was asked to be does not run into the deadline of a request.
#[test]
fn a_deadline_does_not_end_what_moves() {
    let server = S3Server::start();
    let spec = TargetSpec {
        timeout_seconds: Some(1),
        retry_seconds: Some(0),
        upload: Some(Timetable::constant(200_000)),
        download: Some(Timetable::constant(200_000)),
        ..server.spec("x")
    };
    let target = open_with(&spec, &server.environment()).unwrap();
    let content = noise(1, 600_000);
    block_on(async {
        let body = Body::Bytes(content.clone().into());
        put(&target, "h/x", body).await;
        assert!(stream_all(&target, "h/x", 0).await == content);
    });
}

/// And what does not move at all still ends.
#[test]
fn a_limited_target_that_never_answers_is_unavailable_in_bounded_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let spec = TargetSpec {
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        timeout_seconds: Some(1),
        retry_seconds: Some(1),
        ..limited(TargetSpec::from_url("s3://bucket/prefix"))
    };
    let pairs = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let target = open_with(&spec, &Environment::from_pairs(pairs)).unwrap();
    super::assert_unavailable_soon(&target);
}
