//! What only a machine over ssh can do wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealift::storage::{
    Environment, ErrorKind, PutMode, PutOutcome, Storage, TargetError, TargetSpec, open_with,
};

use super::{block_on, noise, text};
use crate::support::rsync::SshServer;

pub fn open(spec: &TargetSpec) -> Arc<dyn Storage> {
    open_with(spec, &Environment::default()).unwrap()
}

/// Patient for a second.
pub fn hasty(spec: TargetSpec) -> Arc<dyn Storage> {
    open(&TargetSpec {
        timeout_seconds: Some(5),
        retry_seconds: Some(1),
        ..spec
    })
}

pub fn errors(target: &Arc<dyn Storage>) -> [TargetError; 4] {
    block_on(async {
        [
            target.list("h/").await.unwrap_err(),
            target
                .put("h/x", text("x"), PutMode::Create)
                .await
                .unwrap_err(),
            target.get("h/x", 10).await.unwrap_err(),
            target.delete("h/x").await.unwrap_err(),
        ]
    })
}

#[test]
fn a_key_that_is_not_known_there_is_denied() {
    let server = SshServer::start("");
    let key = server.stranger();
    let target = hasty(TargetSpec {
        ssh: Some(server.ssh_with(key, "known_hosts")),
        ..server.spec("")
    });
    for error in errors(&target) {
        assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
    }
}

#[test]
fn a_host_that_is_not_known_here_is_not_trusted() {
    let server = SshServer::start("");
    let target = hasty(TargetSpec {
        ssh: Some(server.ssh_with("user_key", "nothing_known")),
        ..server.spec("")
    });
    for error in errors(&target) {
        assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
        assert!(
            error.source.to_string().contains("known_hosts"),
            "{error:?}"
        );
    }
}

#[test]
fn a_dead_port_and_a_silent_one_are_unavailable_in_bounded_time() {
    let began = Instant::now();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let dead = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().port()
    };
    std::thread::scope(|scope| {
        for url in [
            format!("rsync://nobody@127.0.0.1:{dead}/x"),
            format!("rsync://127.0.0.1:{dead}/m"),
            format!("rsync://127.0.0.1:{silent}/m"),
        ] {
            scope.spawn(move || {
                let target = hasty(TargetSpec::from_url(&url));
                let error = block_on(target.list("h/")).unwrap_err();
                assert_eq!(error.kind, ErrorKind::Unavailable, "{url}: {error:?}");
            });
        }
    });
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

/// The key may do nothing but rsync below one folder, and overwrite nothing.
#[test]
fn a_key_restricted_to_rsync_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let restriction = |options: &str| {
        let below = dir.path().display();
        format!("restrict,command=\"rrsync {options} {below}\" ")
    };
    let spec = |server: &SshServer| TargetSpec {
        ssh: Some(server.ssh()),
        ..TargetSpec::from_url(&format!("rsync://root@127.0.0.1:{}/r", server.port()))
    };
    if std::process::Command::new("rrsync")
        .arg("--help")
        .output()
        .is_err()
    {
        eprintln!("rrsync is not installed: not checked");
        return;
    }
    let full = SshServer::start(&restriction("-no-overwrite"));
    let target = open(&spec(&full));
    block_on(async {
        assert!(target.list("h/a/").await.unwrap().is_empty());
        assert!(target.list_folders().await.unwrap().is_empty());
        let put = target.put("h/a/x", text("first"), PutMode::Create).await;
        assert_eq!(put.unwrap(), PutOutcome::Written);
        let again = target.put("h/a/x", text("other"), PutMode::Create).await;
        assert_eq!(again.unwrap(), PutOutcome::Existed);
        assert_eq!(target.list("h/").await.unwrap().len(), 1);
        assert_eq!(target.get("h/a/x", 10).await.unwrap(), "first");
    });
    assert_eq!(fs::read(dir.path().join("r/h/a/x")).unwrap(), b"first");
}

#[test]
fn many_objects_go_in_few_calls() {
    let server = SshServer::start("");
    let log = server.files().join("calls");
    // Counts its calls.
    let counting = server.files().join("ssh-counting");
    let script = format!(
        "#!/bin/sh\necho call >> {}\nexec {} \"$@\"\n",
        log.display(),
        server.ssh()
    );
    write_program(&counting, &script);
    let target = open(&TargetSpec {
        ssh: Some(counting.display().to_string()),
        ..server.spec("/r")
    });
    block_on(async {
        let keys: Vec<String> = (0..60).map(|n| format!("h/a/{n}")).collect();
        let puts = keys.iter().map(|key| async {
            let body = sealift::storage::Body::Bytes(noise(key.len() as u64, 10_000).into());
            target.put(key, body, PutMode::Create).await.unwrap()
        });
        let outcomes = futures::future::join_all(puts).await;
        assert!(outcomes.iter().all(|o| *o == PutOutcome::Written));
        let gets = keys.iter().map(|key| target.get(key, 20_000));
        for got in futures::future::join_all(gets).await {
            assert_eq!(got.unwrap().len(), 10_000);
        }
    });
    let calls = fs::read_to_string(&log).unwrap().lines().count();
    assert!(calls <= 4, "{calls}");
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

/// A large call may take longer than patience lasts, and break off then: it is tried again nevertheless.
#[test]
fn patience_begins_with_the_first_failure() {
    let server = SshServer::start("");
    let (log, breaking) = (
        server.files().join("calls"),
        server.files().join("ssh-breaking"),
    );
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' -M '*) exit 1;; esac\n\
         echo call >> {log}\n\
         if [ $(wc -l < {log}) = 1 ]; then sleep 3; echo 'ssh: the connection was reset' >&2; exit 255; fi\n\
         exec {} \"$@\"\n",
        server.ssh(),
        log = log.display()
    );
    write_program(&breaking, &script);
    let target = open(&TargetSpec {
        ssh: Some(breaking.display().to_string()),
        retry_seconds: Some(2),
        ..server.spec("/r")
    });
    let put = block_on(target.put("h/a/x", text("x"), PutMode::Create));
    assert_eq!(put.unwrap(), PutOutcome::Written);
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 2);
}

/// Larger than any archive can be: it would only fill the disk here.
#[test]
fn what_is_larger_than_any_archive_is_not_fetched() {
    let server = SshServer::start("");
    let planted = server.files().join("r/h/archives/planted");
    fs::create_dir_all(planted.parent().unwrap()).unwrap();
    let file = fs::File::create(&planted).unwrap();
    file.set_len((5 << 30) + 1).unwrap();
    let target = hasty(server.spec("/r"));
    let began = Instant::now();
    let key = "h/archives/planted";
    let errors = block_on(async {
        let streamed = target.stream(key, 0).await.err().unwrap();
        [streamed, target.get_range(key, 0..1).await.unwrap_err()]
    });
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Permanent, "{error:?}");
        let told = sealift::base::error_chain::with_causes(&error);
        assert!(told.contains("more than 5368709120 bytes"), "{told}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}
