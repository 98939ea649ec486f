//! Objects in cold storage: told from others, and asked for.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use sealift::base::rate_schedule::Timetable;
use sealift::storage::{Environment, ErrorKind, PutMode, Storage, TargetSpec, Thaw, open_with};

use super::{block_on, folder, put, text};
use crate::support::s3::{S3Server, error_answer};

#[test]
fn what_is_frozen_is_told_from_what_is_denied() {
    let server = S3Server::start_with(Arc::new(|request| {
        let reads = request.method() == "GET";
        match request.uri().path() {
            path if reads && path.ends_with("/frozen") => {
                Some(error_answer(403, "InvalidObjectState"))
            }
            path if reads && path.ends_with("/denied") => Some(error_answer(403, "AccessDenied")),
            _ => None,
        }
    }));
    let target = open_with(&server.spec("x"), &server.environment()).unwrap();
    block_on(async {
        for key in ["h/frozen", "h/denied", "h/plain"] {
            put(&target, key, "content").await;
        }
        for (key, kind) in [
            ("h/frozen", ErrorKind::Frozen),
            ("h/denied", ErrorKind::Denied),
        ] {
            let errors = [
                target.get(key, 100).await.unwrap_err(),
                target.get_range(key, 0..1).await.unwrap_err(),
                target.stream(key, 0).await.map(|_| ()).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.kind == kind), "{errors:?}");
        }
        assert!(target.is_frozen("h/frozen").await.unwrap());
        assert!(!target.is_frozen("h/plain").await.unwrap());
        assert!(target.is_frozen("h/denied").await.is_err());
        assert!(target.is_frozen("h/missing").await.is_err());
        // It is there nevertheless, and stays.
        let again = target.put("h/frozen", text("other"), PutMode::Create).await;
        assert_eq!(again.unwrap(), sealift::storage::PutOutcome::Existed);
    });
}

fn thaw(target: &Arc<dyn Storage>) -> Result<Thaw, sealift::storage::TargetError> {
    block_on(target.thaw("h/x", 3))
}

#[test]
fn what_the_server_answers_is_understood() {
    let status = Arc::new(AtomicU16::new(202));
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (answer, record) = (status.clone(), seen.clone());
    let server = S3Server::start_with(Arc::new(move |request| {
        let uri = request.uri();
        if request.method() != "POST" || !uri.query()?.starts_with("restore=") {
            return None;
        }
        record.lock().unwrap().push(uri.to_string());
        Some(match answer.load(Ordering::Relaxed) {
            200 => http::Response::new(String::new()),
            202 => http::Response::builder()
                .status(202)
                .body(String::new())
                .unwrap(),
            409 => error_answer(409, "RestoreAlreadyInProgress"),
            // The class is one that can be read at once.
            1 => error_answer(403, "InvalidObjectState"),
            503 => {
                answer.store(202, Ordering::Relaxed);
                error_answer(503, "SlowDown")
            }
            other => error_answer(other, "NoSuchThing"),
        })
    }));
    let plain = server.spec("some/prefix");
    let limited = TargetSpec {
        upload: Some(Timetable::constant(1 << 20)),
        ..plain.clone()
    };
    for spec in [plain, limited] {
        let target = open_with(&spec, &server.environment()).unwrap();
        for (code, expected) in [
            (202, Thaw::Asked),
            (200, Thaw::Ready),
            (409, Thaw::UnderWay),
            (1, Thaw::Ready),
            (503, Thaw::Asked),
        ] {
            status.store(code, Ordering::Relaxed);
            assert_eq!(thaw(&target).unwrap(), expected, "{code}");
        }
        for (code, kind, words) in [
            (403, ErrorKind::Denied, "s3:RestoreObject"),
            (404, ErrorKind::NotFound, "NoSuchThing"),
            (501, ErrorKind::Permanent, "may not support it"),
        ] {
            status.store(code, Ordering::Relaxed);
            let error = thaw(&target).unwrap_err();
            assert_eq!(error.kind, kind, "{error:?}");
            assert!(error.source.to_string().contains(words), "{error:?}");
            assert!(!format!("{error:?}").contains("Signature="), "{error:?}");
        }
    }
    let seen = seen.lock().unwrap();
    assert!(
        seen.iter()
            .all(|uri| uri.starts_with("/backups/some/prefix/h/x?restore=")),
        "{seen:?}"
    );
}

/// The server checks the signature before it says that it knows no such request.
#[test]
fn the_request_is_signed_as_it_should_be() {
    let server = S3Server::start();
    let target = open_with(&server.spec("a b"), &server.environment()).unwrap();
    block_on(put(&target, "h/x", "content"));
    let error = thaw(&target).unwrap_err();
    assert!(
        error.source.to_string().contains("NotImplemented"),
        "{error:?}"
    );
    assert_eq!(error.kind, ErrorKind::Permanent);
    let wrong = [
        ("AWS_ACCESS_KEY_ID", server.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
    ];
    let target = open_with(&server.spec("a b"), &Environment::from_pairs(wrong)).unwrap();
    assert_eq!(thaw(&target).unwrap_err().kind, ErrorKind::Denied);
}

#[test]
fn other_targets_freeze_nothing_and_say_so() {
    let backend = folder();
    block_on(async {
        put(&backend.target, "h/x", "content").await;
        assert!(!backend.target.is_frozen("h/x").await.unwrap());
        let stream = backend.target.stream("h/x", 0).await.unwrap();
        assert_eq!(stream.count().await, 1);
    });
    let error = thaw(&backend.target).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert!(
        error.to_string().starts_with("cannot thaw h/x on"),
        "{error}"
    );
}
