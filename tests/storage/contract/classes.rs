//! Storage classes: what goes where, and no class that is silently ignored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sealift::storage::{Body, Environment, OpenError, PutMode, TargetSpec, open_with};

use super::{block_on, text};
use crate::support::s3::S3Server;

/// The class that each object was put into, and begun to be put into in parts, by path.
type Classes = Arc<Mutex<BTreeMap<String, Option<String>>>>;

fn recording_server() -> (S3Server, Classes) {
    let classes: Classes = Arc::default();
    let record = classes.clone();
    let server = S3Server::start_with(Arc::new(move |request| {
        let method = request.method().as_str();
        if method == "PUT" && request.uri().query().is_none() || method == "POST" {
            let class = request.headers().get("x-amz-storage-class");
            let class = class.map(|class| class.to_str().unwrap().to_owned());
            let path = request.uri().path().to_owned();
            // Completing the parts of an upload names no class.
            record.lock().unwrap().entry(path).or_insert(class);
        }
        None
    }));
    (server, classes)
}

fn put_all(spec: &TargetSpec, server: &S3Server) {
    let target = open_with(spec, &server.environment()).unwrap();
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len((100 << 20) + 1).unwrap();
    let large = || Body::File(large.path().to_owned());
    block_on(async {
        target
            .put("h/hot", text("x"), PutMode::Create)
            .await
            .unwrap();
        target
            .put("h/again", text("x"), PutMode::Replace)
            .await
            .unwrap();
        target
            .put_cold("h/cold", text("x"), PutMode::Create)
            .await
            .unwrap();
        target
            .put_cold("h/cold-again", text("x"), PutMode::Replace)
            .await
            .unwrap();
        if spec.class.is_some() && spec.data_class.is_some() {
            // In parts.
            let put = target.put_cold("h/large", large(), PutMode::Create);
            put.await.unwrap();
        }
    });
}

fn classes_of(data_class: Option<&str>, class: Option<&str>) -> Vec<(String, Option<String>)> {
    let (server, classes) = recording_server();
    let spec = TargetSpec {
        data_class: data_class.map(str::to_owned),
        class: class.map(str::to_owned),
        ..server.spec("p")
    };
    put_all(&spec, &server);
    let found = std::mem::take(&mut *classes.lock().unwrap());
    let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    found
        .into_iter()
        .map(|(path, class)| (name(&path), class))
        .collect()
}

#[test]
fn cold_objects_and_others_go_into_their_classes() {
    let expect = |hot: Option<&str>, cold: Option<&str>| {
        let classes = [
            ("again", hot),
            ("cold", cold),
            ("cold-again", cold),
            ("hot", hot),
        ];
        let owned =
            |(name, class): (&str, Option<&str>)| (name.to_owned(), class.map(str::to_owned));
        classes.map(owned).to_vec()
    };
    // The two that the test server takes.
    let (hot, cold) = (Some("STANDARD"), Some("REDUCED_REDUNDANCY"));
    let mut large = expect(hot, cold);
    large.push(("large".to_owned(), cold.map(str::to_owned)));
    assert_eq!(classes_of(None, None), expect(None, None));
    assert_eq!(classes_of(cold, None), expect(None, cold));
    assert_eq!(classes_of(cold, hot), large);
    assert_eq!(classes_of(None, hot), expect(hot, hot));
}

#[test]
fn a_class_where_there_are_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    let urls = [
        folder.as_str(),
        "memory://",
        "https://dav.example/x",
        "rsync://me@laptop/b",
        "me@laptop:b",
    ];
    for url in urls {
        let plain = TargetSpec::from_url(url);
        let specs = [
            (
                "data_class",
                TargetSpec {
                    data_class: Some("COLD".to_owned()),
                    ..plain.clone()
                },
            ),
            (
                "class",
                TargetSpec {
                    class: Some("COLD".to_owned()),
                    ..plain
                },
            ),
        ];
        for (key, spec) in specs {
            let error = open_with(&spec, &Environment::default()).err().unwrap();
            assert!(matches!(error, OpenError::Malformed { .. }), "{url}");
            assert!(
                error.to_string().contains(&format!("{key} is set")),
                "{error}"
            );
        }
    }
    let spec = TargetSpec {
        class: Some("x\r\ny: z".to_owned()),
        ..TargetSpec::from_url("s3://b")
    };
    let error = open_with(&spec, &Environment::default()).err().unwrap();
    assert!(error.to_string().contains("class is not"), "{error}");
}
