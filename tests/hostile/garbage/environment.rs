//! Every variable that a library behind a target reads, in this process: the target is opened, and asked.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use sealift::storage::{Body, Environment, PutMode, TargetSpec, open_with};

use super::values::{Source, assert_no_panic};
use crate::support::is_long;

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:1";
/// A file of a line without an end.
const TOKEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/garbage/token");
/// In each secret; must not be shown.
const SECRET: &str = "hunter2";

/// A target, what its environment says, and what else may be there.
struct Scene {
    url: &'static str,
    says: &'static [(&'static str, &'static str)],
    others: &'static [&'static str],
}

const AWS_OTHERS: &[&str] = &[
    "AWS_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_BUCKET",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_CA_BUNDLE",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_S3_EXPRESS",
    "AWS_IMDSV1_FALLBACK",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_SKIP_SIGNATURE",
    "AWS_COPY_IF_NOT_EXISTS",
    "AWS_CONDITIONAL_PUT",
    "AWS_DISABLE_TAGGING",
    "AWS_REQUEST_PAYER",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_METADATA_ENDPOINT",
    "AWS_TIMEOUT",
    "AWS_USER_AGENT",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "HOME",
];

const SCENES: &[Scene] = &[
    Scene {
        url: "s3://bucket/x",
        says: &[
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_SESSION_TOKEN", "token-hunter2"),
            ("AWS_ENDPOINT_URL_S3", NOWHERE),
            ("AWS_ENDPOINT_URL", NOWHERE),
        ],
        others: AWS_OTHERS,
    },
    Scene {
        url: "s3://bucket/x",
        says: &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", TOKEN),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
            ("AWS_ROLE_SESSION_NAME", "x"),
            ("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1"),
            ("AWS_ENDPOINT_URL_S3", NOWHERE),
            ("AWS_ENDPOINT_URL", NOWHERE),
        ],
        others: &[],
    },
    Scene {
        url: "s3://bucket/x",
        says: &[
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "http://127.0.0.1:1/x?y=z",
            ),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", TOKEN),
            ("AWS_ENDPOINT_URL_S3", NOWHERE),
            ("AWS_ENDPOINT_URL", NOWHERE),
        ],
        others: &[],
    },
    Scene {
        url: "gs://bucket/x",
        says: &[
            ("GOOGLE_BASE_URL", NOWHERE),
            ("GOOGLE_BEARER_TOKEN", SECRET),
        ],
        others: &[
            "GOOGLE_SERVICE_ACCOUNT",
            "GOOGLE_SERVICE_ACCOUNT_PATH",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "GOOGLE_BUCKET",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "GOOGLE_SKIP_SIGNATURE",
            "GOOGLE_ALLOW_HTTP",
            "GOOGLE_TIMEOUT",
            "GCE_METADATA_HOST",
            "GCE_METADATA_ROOT",
            "GCE_METADATA_IP",
            "http_proxy",
            "all_proxy",
            "no_proxy",
        ],
    },
    Scene {
        url: "az://container/x",
        says: &[
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg=="),
            ("AZURE_STORAGE_ENDPOINT", NOWHERE),
        ],
        others: &[
            "AZURE_STORAGE_TOKEN",
            "AZURE_STORAGE_SAS_KEY",
            "AZURE_STORAGE_USE_EMULATOR",
            "AZURE_USE_FABRIC_ENDPOINT",
            "AZURE_SKIP_SIGNATURE",
            "AZURE_CONTAINER_NAME",
            "AZURE_DISABLE_TAGGING",
            "AZURE_CREDENTIAL_TYPE",
            "AZURE_STORAGE_ENCRYPTION_KEY",
            "AZURE_USE_AZURE_CLI",
            "AZURE_ENDPOINT",
            "HTTP_PROXY",
        ],
    },
    Scene {
        url: "az://container/x",
        says: &[
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_CLIENT_ID", "id"),
            ("AZURE_CLIENT_SECRET", SECRET),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1"),
            ("AZURE_STORAGE_ENDPOINT", NOWHERE),
        ],
        others: &["AZURE_FEDERATED_TOKEN_FILE", "AZURE_OBJECT_ID"],
    },
    Scene {
        url: "az://container/x",
        says: &[
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("MSI_ENDPOINT", "http://127.0.0.1:1/msi"),
            ("IDENTITY_HEADER", SECRET),
            ("AZURE_STORAGE_ENDPOINT", NOWHERE),
        ],
        others: &[
            "IDENTITY_ENDPOINT",
            "AZURE_MSI_ENDPOINT",
            "AZURE_MSI_RESOURCE_ID",
        ],
    },
    Scene {
        url: "http://127.0.0.1:1/dav",
        says: &[
            ("SEALIFT_WEBDAV_USER", "me"),
            ("SEALIFT_WEBDAV_PASSWORD", SECRET),
        ],
        others: &["HTTP_PROXY", "ALL_PROXY", "NO_PROXY"],
    },
    Scene {
        url: "https://127.0.0.1:1/dav",
        says: &[("HTTPS_PROXY", NOWHERE)],
        others: &[
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "ALL_PROXY",
            "NO_PROXY",
            "https_proxy",
        ],
    },
];

/// What the target says when it is opened and asked.
fn said(spec: &TargetSpec, environment: &Environment) -> String {
    let told = |error: &dyn std::error::Error| sealift::base::error_chain::with_causes(error);
    let target = match open_with(spec, environment) {
        Ok(target) => target,
        Err(error) => return told(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let asked = async {
            let listed = target.list("h/").await.map(drop);
            let body = Body::Bytes("x".into());
            let put = target.put("h/x", body, PutMode::Create).await.map(drop);
            let errors = [listed.err(), put.err()].into_iter().flatten();
            errors
                .map(|error| told(&error))
                .collect::<Vec<_>>()
                .join("\n")
        };
        let asked = tokio::time::timeout(Duration::from_secs(30), asked).await;
        asked.unwrap_or_else(|_| panic!("no answer: {spec:?}"))
    })
}

fn patient(spec: TargetSpec) -> TargetSpec {
    TargetSpec {
        timeout_seconds: Some(1),
        retry_seconds: Some(0),
        ..spec
    }
}

/// Until time or cases are used up.
fn repeat(everyday: usize, mut attempt: impl FnMut(&mut Source)) {
    let mut source = Source::new();
    let (cases, time) = match is_long() {
        true => (5_000, Duration::from_secs(300)),
        false => (everyday, Duration::from_secs(4)),
    };
    let began = Instant::now();
    let mut done = 0;
    while done < cases && began.elapsed() < time {
        attempt(&mut source);
        done += 1;
    }
    println!("{done} cases");
    assert!(done > 5);
}

#[test]
fn a_variable_that_is_garbage_is_the_failure_of_its_target() {
    repeat(150, |source| {
        let scene = source.of(SCENES);
        let names: Vec<&str> = scene.says.iter().map(|(name, _)| *name).collect();
        let names = [names.as_slice(), scene.others].concat();
        let name = *source.of(&names);
        let before = scene.says.iter().find(|(says, _)| *says == name);
        let value = match before {
            // A right value with something in it is likelier to get through than garbage alone.
            Some((_, value)) if source.below(2) == 0 => {
                let (at, garbage) = (source.below(value.len() + 1), source.garbage());
                format!("{}{garbage}{}", &value[..at], &value[at..])
            }
            _ => source.garbage(),
        };
        let rest = scene.says.iter().copied().filter(|(says, _)| *says != name);
        let pairs = rest.chain([(name, value.as_str())]);
        let spec = patient(TargetSpec::from_url(scene.url));
        let said = said(&spec, &Environment::from_pairs(pairs));
        let what = format!(
            "{} {name}={:?}",
            scene.url,
            value.chars().take(200).collect::<String>()
        );
        assert_no_panic(&said, &what);
        assert!(!said.contains(SECRET), "{what}: {said}");
    });
}

/// Kind: a library reads the file that a variable names to its end, or waits for a writer. (`/dev/zero` took all memory.)
#[test]
fn a_variable_that_names_a_file_without_an_end_is_the_failure_of_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("long");
    let file = std::fs::File::create(&long).unwrap();
    file.set_len(1 << 30).unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let names_a_file = |name: &str| {
        let files = [
            "_FILE",
            "_PATH",
            "_CREDENTIALS",
            "_BUNDLE",
            "SERVICE_ACCOUNT",
        ];
        files.iter().any(|ending| name.ends_with(ending))
    };
    let mut tried = 0;
    for scene in SCENES {
        let said_names = scene.says.iter().map(|(name, _)| name);
        for name in said_names
            .chain(scene.others)
            .filter(|name| names_a_file(name))
        {
            for file in [&long, &fifo] {
                let rest = scene.says.iter().copied();
                let rest = rest.filter(|(says, _)| says != name);
                let value = file.to_str().unwrap();
                let environment = Environment::from_pairs(rest.chain([(*name, value)]));
                let began = Instant::now();
                let said = said(&patient(TargetSpec::from_url(scene.url)), &environment);
                assert!(began.elapsed() < Duration::from_secs(20), "{name}: {said}");
                let is_named = said.contains(name) || said.contains(value) || file == &fifo;
                assert!(is_named, "{name}={value}: {said}");
                tried += 1;
            }
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn a_setting_that_is_garbage_is_the_failure_of_its_target() {
    const URLS: &[&str] = &[
        "s3://bucket/x",
        "gs://bucket/x",
        "az://container/x",
        "http://127.0.0.1:1/dav",
        "rsync://me@127.0.0.1:1/x",
        "sftp://me@127.0.0.1:1/x",
        "rsync://127.0.0.1:1/module",
    ];
    let environment = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("GOOGLE_BEARER_TOKEN", "c"),
        ("AZURE_STORAGE_ACCOUNT_NAME", "d"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "aGVsbG8="),
    ];
    repeat(120, |source| {
        let url: &&str = source.of(URLS);
        let mut spec = patient(TargetSpec::from_url(url));
        if !spec.url.starts_with("http") {
            spec.endpoint = Some(NOWHERE.to_owned());
        }
        let mut garbage = source.garbage();
        match source.below(7) {
            0 | 1 => {
                // Not the host: it might be one.
                let at = spec.url.find("://").unwrap() + 3;
                garbage = garbage.replace("s3://", "");
                spec.url = match source.below(3) {
                    0 if spec.url.contains("bucket") => format!("{}{garbage}/x", &spec.url[..at]),
                    1 => format!("{}/{garbage}", spec.url),
                    _ => format!("{garbage}{}", spec.url),
                };
            }
            2 => spec.endpoint = Some(garbage.clone()),
            3 => spec.region = Some(garbage.clone()),
            4 => spec.class = Some(garbage.clone()),
            5 => spec.data_class = Some(garbage.clone()),
            // Not run: a command's name is what is chosen.
            _ => spec.ssh = Some(format!("/nonexistent/ssh {garbage}")),
        }
        let what = format!("{spec:?}").chars().take(600).collect::<String>();
        if spec.check().is_err() {
            let opened = open_with(&spec, &Environment::from_pairs(environment));
            assert!(opened.is_err(), "{what}");
            return;
        }
        if sealift::storage::folder_path(&spec.url).is_some() {
            // It would be made.
            return;
        }
        assert_no_panic(&said(&spec, &Environment::from_pairs(environment)), &what);
    });
}

/// Kind: a variable that names the place wins over the URL, and backups go where the operator does not look for them.
#[test]
fn the_bucket_is_the_one_of_the_url_whatever_the_environment_says() {
    for (url, endpoint, more) in [
        (
            "s3://mine/x",
            "AWS_ENDPOINT_URL",
            &[("AWS_BUCKET", "other"), ("AWS_BUCKET_NAME", "other")],
        ),
        (
            "gs://mine/x",
            "GOOGLE_BASE_URL",
            &[("GOOGLE_BUCKET", "other"), ("GOOGLE_BUCKET_NAME", "other")],
        ),
        (
            "az://mine/x",
            "AZURE_STORAGE_ENDPOINT",
            &[
                ("AZURE_CONTAINER_NAME", "other"),
                ("AZURE_ALLOW_HTTP", "true"),
            ],
        ),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
            let text = String::from_utf8_lossy(&head[..read]).into_owned();
            text.lines().next().unwrap_or_default().to_owned()
        });
        let common = [
            (endpoint, server.as_str()),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("GOOGLE_BEARER_TOKEN", SECRET),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg=="),
        ];
        let pairs = common.into_iter().chain(more.iter().copied());
        let spec = TargetSpec {
            allow_http: true,
            ..patient(TargetSpec::from_url(url))
        };
        let said = said(&spec, &Environment::from_pairs(pairs));
        assert!(!said.is_empty());
        let line = asked.join().unwrap();
        assert!(
            line.contains("/mine") && !line.contains("other"),
            "{url}: {line}"
        );
    }
}
