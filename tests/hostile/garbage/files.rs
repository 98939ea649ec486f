//! Every file that credentials come from: as a whole, and a right one with garbage in a value.

use std::fs;

use super::values::{Source, assert_no_panic};
use crate::support::host::{Host, texts};
use crate::support::is_long;

type Pairs = &'static [(&'static str, &'static str)];

/// A target, the variable that names its file, other variables, and a right file with a place for garbage.
const FILES: &[(&str, &str, Pairs, &str)] = &[
    (
        "s3://bucket/x",
        "AWS_SHARED_CREDENTIALS_FILE",
        &[],
        "[default]\naws_access_key_id = AK%\naws_secret_access_key = hunter2\n",
    ),
    (
        "s3://bucket/x",
        "AWS_SHARED_CREDENTIALS_FILE",
        &[],
        "[default]\naws_access_key_id = AK\naws_secret_access_key = hunter2%\naws_session_token = x%\n",
    ),
    (
        "s3://bucket/x",
        "AWS_CONFIG_FILE",
        &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")],
        "[default]\nregion = eu%\nca_bundle = %\nendpoint_url = %\n",
    ),
    (
        "s3://bucket/x",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")],
        "hunter2%",
    ),
    (
        "s3://bucket/x",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        &[
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
            ("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1"),
        ],
        "hunter2%",
    ),
    (
        "s3://bucket/x",
        "AWS_CA_BUNDLE",
        &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")],
        "%",
    ),
    (
        "gs://bucket/x",
        "GOOGLE_SERVICE_ACCOUNT",
        &[],
        "{\"type\": \"service_account\", \"client_email\": \"%\", \"private_key\": \"hunter2\", \"private_key_id\": \"%\"}",
    ),
    (
        "gs://bucket/x",
        "GOOGLE_SERVICE_ACCOUNT",
        &[],
        "{\"gcs_base_url\": \"%\", \"disable_oauth\": true, \"client_email\": \"\", \"private_key\": \"\", \"private_key_id\": \"\"}",
    ),
    (
        "gs://bucket/x",
        "GOOGLE_APPLICATION_CREDENTIALS",
        &[],
        "{\"type\": \"authorized_user\", \"client_id\": \"%\", \"client_secret\": \"hunter2\", \"refresh_token\": \"%\"}",
    ),
    (
        "az://container/x",
        "AZURE_FEDERATED_TOKEN_FILE",
        &[
            ("AZURE_STORAGE_ACCOUNT_NAME", "a"),
            ("AZURE_CLIENT_ID", "b"),
            ("AZURE_TENANT_ID", "c"),
            ("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1"),
        ],
        "hunter2%",
    ),
    ("https://127.0.0.1:1/dav", "SSL_CERT_FILE", &[], "%"),
];

#[test]
fn a_credential_file_that_is_garbage_is_the_failure_of_its_target() {
    let host = Host::new();
    fs::write(host.data().join("f"), "x").unwrap();
    let folder = host.config();
    let mut source = Source::new();
    let rounds = if is_long() { 500 } else { 22 };
    // Each file once at least.
    for round in 0..rounds {
        let (url, variable, others, right) = FILES[round % FILES.len()];
        let content = match source.below(3) {
            0 => source.garbage(),
            _ => {
                let garbage = source.garbage();
                right.replace('%', &garbage.replace(['"', '\\'], "_"))
            }
        };
        let endpoint = match url.split_once("://").unwrap().0 {
            "https" => "",
            _ => "endpoint = \"http://127.0.0.1:1\"\n",
        };
        let endpoint = if right.contains("gcs_base_url") {
            ""
        } else {
            endpoint
        };
        let odd = format!(
            "\n[[target]]\nname = \"odd\"\nurl = \"{url}\"\n{endpoint}retry = \"0s\"\ntimeout = \"1s\"\n"
        );
        fs::write(host.path("c.toml"), format!("{folder}{odd}")).unwrap();
        fs::write(host.path("garbage"), &content).unwrap();
        let _ = fs::remove_dir_all(host.path("repo/dalidou/manifests"));
        let _ = fs::remove_dir_all(host.path("c.state"));
        let mut backup = host.command(&["backup"]);
        backup
            .env(variable, host.path("garbage"))
            .envs(others.iter().copied());
        // Nothing of a cloud's is asked.
        backup.envs([
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("GCE_METADATA_HOST", "127.0.0.1:1"),
        ]);
        backup.env("GCE_METADATA_IP", "127.0.0.1:1");
        let output = backup.output().unwrap();
        let (out, err) = texts(&output);
        let said = format!("{out}{err}");
        let what = format!(
            "{variable} {:?}",
            content.chars().take(200).collect::<String>()
        );
        assert_no_panic(&said, &what);
        assert!(!said.contains("hunter2"), "{what}: {said}");
        assert_eq!(output.status.code(), Some(3), "{what}: {said}");
        assert!(
            out.contains("published") && out.contains("BEHIND"),
            "{what}: {said}"
        );
    }
}

/// What this host itself reads: a wrong one is an error, and nothing else.
#[test]
fn a_file_of_the_host_that_is_garbage_is_an_error() {
    let host = Host::new();
    fs::write(host.data().join("f"), "x").unwrap();
    host.backup();
    host.edit_config("recipients = [", "recipients = [\"./recipients.txt\", ");
    let mut source = Source::new();
    let cases: &[(&str, &[&str])] = &[
        ("c.signer", &["backup"]),
        ("c.signer.pub", &["backup"]),
        ("allowed_signers", &["status"]),
        ("recipients.txt", &["backup"]),
        ("c.toml", &["status"]),
        (
            "key.txt",
            &[
                "restore",
                "--from",
                "repo",
                "--accept-signer",
                "--to",
                "out",
                "--identity",
                "key.txt",
            ],
        ),
        (
            "c.state/pins",
            &["prune", "--dry-run", "--policy", "last=1"],
        ),
    ];
    fs::write(host.path("recipients.txt"), format!("{}\n", host.recipient)).unwrap();
    for round in 0..if is_long() { 300 } else { 14 } {
        let (name, arguments) = cases[round % cases.len()];
        let path = host.path(name);
        let before = fs::read(&path).ok();
        fs::write(&path, source.garbage()).unwrap();
        let output = host.run(arguments);
        let (out, err) = texts(&output);
        assert_no_panic(&format!("{out}{err}"), name);
        assert!(
            matches!(output.status.code(), Some(0..=3)),
            "{name}: {out}{err}"
        );
        let _ = fs::remove_dir_all(host.path("out"));
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
}
