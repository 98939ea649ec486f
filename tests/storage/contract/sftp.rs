//! What only sftp over ssh can do wrong.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt as _;
use sealift::base::rate_schedule::Timetable;
use sealift::storage::{Body, ErrorKind, PutMode, PutOutcome, Storage, TargetSpec};

use super::ssh::{errors, hasty, open};
use super::{block_on, keys, noise, put, stream_all, text};
use crate::support::files::names_in;
use crate::support::rsync::SshServer;

/// A network between here and the server, which breaks once a number of bytes went through in both directions.
struct Network {
    port: u16,
    left: Arc<AtomicI64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Breaks {
    /// Closes connections; the next ones are whole.
    Once,
    /// Closes connections, and all after them.
    ForGood,
    /// Is silent, and leaves connections open.
    Silently,
}

impl Network {
    fn to(server: &SshServer, how: Breaks) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = server.port();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let shared = Arc::clone(&left);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).unwrap();
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to) in [(client, server), back] {
                    let left = Arc::clone(&shared);
                    std::thread::spawn(move || forward(from, to, &left, how));
                }
            }
        });
        Self { port, left }
    }

    fn breaks_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    fn heals(&self) {
        self.breaks_after(i64::MAX);
    }

    fn spec(&self, server: &SshServer, below: &str) -> TargetSpec {
        let options = "-o ConnectTimeout=2 -o HostKeyAlias=";
        TargetSpec {
            ssh: Some(format!(
                "{} {options}[127.0.0.1]:{}",
                server.ssh(),
                server.port()
            )),
            ..TargetSpec::from_url(&server.url_by("sftp", self.port, below))
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, left: &AtomicI64, how: Breaks) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if left.fetch_sub(length as i64, Ordering::SeqCst) < length as i64 {
            match how {
                Breaks::Once => left.store(i64::MAX, Ordering::SeqCst),
                Breaks::ForGood => {}
                Breaks::Silently => std::thread::sleep(Duration::from_secs(120)),
            }
            break;
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn big(content: &[u8]) -> (tempfile::NamedTempFile, Body) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), content).unwrap();
    let body = Body::File(file.path().to_owned());
    (file, body)
}

#[test]
fn who_is_not_known_is_denied() {
    let server = SshServer::start("");
    let key = server.stranger();
    let stranger = hasty(TargetSpec {
        ssh: Some(server.ssh_with(key, "known_hosts")),
        ..server.sftp_spec("")
    });
    let unknown_host = hasty(TargetSpec {
        ssh: Some(server.ssh_with("user_key", "nothing_known")),
        ..server.sftp_spec("")
    });
    for error in errors(&stranger).into_iter().chain(errors(&unknown_host)) {
        assert_eq!(error.kind, ErrorKind::Denied, "{error:?}");
    }
    let error = block_on(unknown_host.list("h/")).unwrap_err();
    assert!(
        error.source.to_string().contains("known_hosts"),
        "{error:?}"
    );
}

#[test]
fn a_server_without_sftp_is_told_so() {
    let server = SshServer::configured("", "");
    let began = Instant::now();
    for error in errors(&open(&server.sftp_spec(""))) {
        assert_eq!(error.kind, ErrorKind::Permanent, "{error:?}");
        assert!(
            error.source.to_string().contains("has no sftp"),
            "{error:?}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_says_other_things_is_no_sftp() {
    let server = SshServer::start("command=\"echo Welcome to this machine, have a nice day\" ");
    for error in errors(&open(&server.sftp_spec(""))) {
        assert_eq!(error.kind, ErrorKind::Permanent, "{error:?}");
        assert!(
            error.source.to_string().contains("login script"),
            "{error:?}"
        );
    }
}

#[test]
fn a_machine_that_is_away_is_unavailable_in_bounded_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = gone.local_addr().unwrap().port();
    drop(gone);
    let began = Instant::now();
    for port in [silent, dead] {
        let target = hasty(TargetSpec {
            ssh: Some("ssh -F none -o ConnectTimeout=2".to_owned()),
            ..TargetSpec::from_url(&format!("sftp://nobody@127.0.0.1:{port}/x"))
        });
        // Those who wait for one connection fail with it, not one after the other.
        let gets = (0..20).map(|_| target.get("h/x", 10));
        for error in block_on(futures::future::join_all(gets)) {
            let error = error.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Unavailable, "{port}: {error:?}");
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "{:?}",
        began.elapsed()
    );
    let target = open(&TargetSpec {
        ssh: Some("/nonexistent/ssh".to_owned()),
        ..TargetSpec::from_url("sftp://nobody@127.0.0.1/x")
    });
    let error = block_on(target.list("h/")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent, "{error:?}");
}

#[test]
fn a_large_file_survives_a_network_that_breaks() {
    let server = SshServer::start("");
    let network = Network::to(&server, Breaks::Once);
    let target = open(&network.spec(&server, "/r"));
    let content = noise(1, 40_000_000);
    let (_file, body) = big(&content);
    block_on(async {
        network.breaks_after(15_000_000);
        let put = target.put("h/a/big", body, PutMode::Create).await;
        assert_eq!(put.unwrap(), PutOutcome::Written);
        assert!(fs::read(server.files().join("r/h/a/big")).unwrap() == content);
        // The file of the attempt that broke is gone too.
        assert_eq!(names_in(&server.files().join("r/h/.tmp")), [""; 0]);
        network.breaks_after(20_000_000);
        assert!(stream_all(&target, "h/a/big", 1_000_000).await == content[1_000_000..]);
        network.breaks_after(5_000_000);
        let range = target.get_range("h/a/big", 3..30_000_003).await.unwrap();
        assert!(range == content[3..30_000_003]);
        network.breaks_after(5_000_000);
        assert!(target.get("h/a/big", 1 << 30).await.unwrap() == content);
        assert_eq!(keys(&target, "").await, ["h/a/big"]);
    });
}

#[test]
fn an_interrupted_put_leaves_no_object() {
    let server = SshServer::start("");
    let network = Network::to(&server, Breaks::ForGood);
    let target = open(&TargetSpec {
        retry_seconds: Some(0),
        ..network.spec(&server, "/r")
    });
    let (_file, body) = big(&noise(2, 20_000_000));
    block_on(async {
        put(&target, "h/first", "x").await;
        network.breaks_after(8_000_000);
        let broken = target.put("h/big", body.clone(), PutMode::Create).await;
        let error = broken.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
        assert_eq!(names_in(&server.files().join("r/h")), [".tmp", "first"]);
        let left = names_in(&server.files().join("r/h/.tmp"));
        assert!(left.len() == 1 && left[0].starts_with("put-"), "{left:?}");
        network.heals();
        assert_eq!(keys(&target, "h/").await, ["h/first"]);
        let again = target.put("h/big", body, PutMode::Create).await;
        assert_eq!(again.unwrap(), PutOutcome::Written);
        assert_eq!(names_in(&server.files().join("r/h/.tmp")), [""; 0]);
    });
}

#[test]
fn a_stream_that_cannot_go_on_ends_with_an_error() {
    let server = SshServer::start("");
    let network = Network::to(&server, Breaks::ForGood);
    let target = open(&TargetSpec {
        retry_seconds: Some(1),
        ..network.spec(&server, "/r")
    });
    let content = noise(3, 20_000_000);
    let (_file, body) = big(&content);
    block_on(async {
        target.put("h/big", body, PutMode::Create).await.unwrap();
        network.breaks_after(8_000_000);
        let mut stream = target.stream("h/big", 0).await.unwrap();
        let mut got = Vec::new();
        let error = loop {
            match stream.next().await {
                Some(Ok(bytes)) => got.extend_from_slice(&bytes),
                Some(Err(error)) => break error,
                None => panic!("a part passed for the whole"),
            }
        };
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
        assert!(!got.is_empty() && got[..] == content[..got.len()]);
    });
}

#[test]
fn a_silent_server_keeps_nobody() {
    let server = SshServer::start("");
    let network = Network::to(&server, Breaks::Silently);
    let target = open(&TargetSpec {
        timeout_seconds: Some(2),
        retry_seconds: Some(0),
        ..network.spec(&server, "/r")
    });
    let (_file, body) = big(&noise(4, 20_000_000));
    block_on(async {
        put(&target, "h/x", "x").await;
        network.breaks_after(5_000_000);
        let began = Instant::now();
        let (put, got) = futures::future::join(
            target.put("h/big", body, PutMode::Create),
            target.get("h/x", 10),
        )
        .await;
        assert_eq!(put.unwrap_err().kind, ErrorKind::Unavailable);
        if let Err(error) = got {
            assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
        }
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "{:?}",
            began.elapsed()
        );
    });
}

/// An ssh that writes down its process's id with every call.
fn noting(server: &SshServer) -> (TargetSpec, PathBuf) {
    let (log, script) = (
        server.files().join("calls"),
        server.files().join("ssh noting"),
    );
    let text = format!(
        "#!/bin/sh\necho $$ >> {}\nexec {} \"$@\"\n",
        log.display(),
        server.ssh()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let spec = TargetSpec {
        ssh: Some(format!("'{}'", script.display())),
        ..server.sftp_spec("/r")
    };
    (spec, log)
}

fn processes(log: &Path) -> Vec<PathBuf> {
    let ids = fs::read_to_string(log).unwrap();
    let folder = |id| Path::new("/proc").join(id);
    ids.lines().map(folder).collect()
}

#[test]
fn all_requests_share_a_connection_which_ends_with_the_target() {
    let server = SshServer::start("");
    let (spec, log) = noting(&server);
    let target = open(&spec);
    block_on(async {
        let keys: Vec<String> = (0..60).map(|n| format!("h/{n}/x")).collect();
        let puts = keys
            .iter()
            .map(|key| target.put(key, text(key), PutMode::Create));
        for outcome in futures::future::join_all(puts).await {
            assert_eq!(outcome.unwrap(), PutOutcome::Written);
        }
        let gets = keys.iter().map(|key| target.get(key, 20));
        for (got, key) in futures::future::join_all(gets).await.iter().zip(&keys) {
            assert_eq!(got.as_ref().unwrap(), key);
        }
        assert_eq!(target.list("h/").await.unwrap().len(), 60);
        let [process] = processes(&log).try_into().unwrap();
        assert!(process.exists());
        drop(target);
        let until = Instant::now() + Duration::from_secs(5);
        while process.exists() {
            assert!(
                Instant::now() < until,
                "ssh is there still, at least as a zombie"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_connection_that_broke_unnoticed_is_made_anew() {
    let server = SshServer::start("");
    let (spec, log) = noting(&server);
    let target = open(&TargetSpec {
        retry_seconds: Some(0),
        ..spec
    });
    let kill = |process: &Path| {
        let id = process.file_name().unwrap();
        let killed = std::process::Command::new("kill").arg(id).status();
        assert!(killed.unwrap().success());
    };
    block_on(async {
        put(&target, "h/x", "x").await;
        kill(&processes(&log)[0]);
        // At once, perhaps before anybody could notice, and later.
        assert_eq!(target.get("h/x", 10).await.unwrap(), "x");
        kill(&processes(&log)[1]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        put(&target, "h/y", "y").await;
        assert_eq!(processes(&log).len(), 3);
    });
    // Nor is it of use in another runtime.
    block_on(async {
        assert_eq!(keys(&target, "h/").await, ["h/x", "h/y"]);
    });
}

#[test]
fn what_killed_puts_left_goes_after_a_day() {
    let server = SshServer::start("");
    let scratch = server.files().join("r/h/.tmp");
    fs::create_dir_all(&scratch).unwrap();
    let hours = |hours: u64| SystemTime::now() - Duration::from_secs(3600 * hours);
    for (name, age) in [("put-old", 25), ("put-young", 23), ("other", 1000)] {
        let file = fs::File::create(scratch.join(name)).unwrap();
        file.set_modified(hours(age)).unwrap();
    }
    let target = open(&server.sftp_spec("/r"));
    block_on(async {
        put(&target, "h/x", "x").await;
        assert_eq!(names_in(&scratch), ["other", "put-young"]);
        assert_eq!(keys(&target, "").await, ["h/x"]);
        let modified = target.list("h/").await.unwrap()[0].modified.unwrap();
        let age = chrono::Utc::now() - modified;
        assert!(age.num_seconds().abs() < 60, "{age}");
    });
}

#[test]
fn what_is_not_ours_is_in_nobodys_way() {
    let server = SshServer::start("");
    let files = server.files();
    fs::create_dir(files.join("h")).unwrap();
    fs::write(files.join("h/real"), "x").unwrap();
    std::os::unix::fs::symlink(files.join("h/real"), files.join("h/link")).unwrap();
    std::os::unix::fs::symlink(files.join("h"), files.join("other")).unwrap();
    // No UTF-8.
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::create_dir(files.join(odd)).unwrap();
    fs::write(files.join("h").join(odd), "x").unwrap();
    let target = open(&server.sftp_spec(""));
    block_on(async {
        assert_eq!(target.list_folders().await.unwrap(), ["h"]);
        assert_eq!(keys(&target, "").await, ["h/real"]);
        for mode in [PutMode::Create, PutMode::Replace] {
            let onto_a_folder = target.put("h", text("x"), mode).await;
            assert!(onto_a_folder.is_err(), "{mode:?}");
        }
        // A link that leads nowhere is there nevertheless.
        fs::remove_file(files.join("h/real")).unwrap();
        let onto_a_link = target.put("h/link", text("x"), PutMode::Create).await;
        assert_eq!(onto_a_link.unwrap_err().kind, ErrorKind::Permanent);
        assert_eq!(names_in(&files.join(".tmp")), [""; 0]);
        assert_eq!(names_in(&files.join("h/.tmp")), [""; 0]);
    });
}

#[test]
fn a_home_directory_is_where_paths_begin() {
    let server = SshServer::start("");
    let user = server.sftp_url("");
    let user = user.split('@').next().unwrap();
    let unlikely = format!("sealift-test-{}", std::process::id());
    let target = open(&TargetSpec {
        ssh: Some(server.ssh()),
        ..TargetSpec::from_url(&format!(
            "{user}@127.0.0.1:{}/~/{unlikely}/deep",
            server.port()
        ))
    });
    // As the system knows it: $HOME may be another.
    use uzers::os::unix::UserExt as _;
    let me = uzers::get_user_by_uid(uzers::get_current_uid()).unwrap();
    let home = me.home_dir().join(&unlikely);
    block_on(async {
        put(&target, "h/x", "x").await;
        assert_eq!(keys(&target, "h/").await, ["h/x"]);
    });
    assert_eq!(fs::read(home.join("deep/h/x")).unwrap(), b"x");
    fs::remove_dir_all(home).unwrap();
}

#[test]
fn transfers_keep_to_their_pace() {
    let server = SshServer::start("");
    let target: Arc<dyn Storage> = open(&TargetSpec {
        upload: Some(Timetable::constant(2_000_000)),
        download: Some(Timetable::constant(2_000_000)),
        ..server.sftp_spec("/r")
    });
    let content = noise(5, 4_000_000);
    block_on(async {
        let began = Instant::now();
        let body = Body::Bytes(content.clone().into());
        target.put("h/x", body, PutMode::Create).await.unwrap();
        let up = began.elapsed();
        assert!(stream_all(&target, "h/x", 0).await == content);
        let down = began.elapsed() - up;
        for took in [up, down] {
            assert!((1500..20_000).contains(&took.as_millis()), "{took:?}");
        }
    });
}
