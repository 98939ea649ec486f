//! A target that cannot be reached is named with its cause within seconds by every command that a
//! person waits for, over every transport. A scheduled backup waits until it is back.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::free_port;
use crate::support::host::{Host, texts};
use crate::support::s3::{BUCKET, S3Server};

/// The documented 10 seconds, on a machine with other work.
const WITHIN: Duration = Duration::from_secs(20);

/// A port to which no connection comes about, because nothing takes the ones before it.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(one);
            assert!(waiting.len() < 20_000, "the backlog has no end");
        }
        Self {
            address,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// Host and port of a server, and what a command must say of it.
struct Cause {
    server: String,
    says: &'static [&'static str],
}

const TRANSPORTS: [&str; 5] = ["s3", "webdav", "ssh", "sftp", "daemon"];

/// The lines of a target at `server`.
fn lines(transport: &str, server: &str) -> String {
    match transport {
        "s3" => format!("url = \"s3://bucket/x\"\nendpoint = \"http://{server}\"\n"),
        "webdav" => format!("url = \"http://{server}/x\"\n"),
        "ssh" => {
            let (host, port) = server.split_once(':').unwrap();
            format!("url = \"me@{host}:/x\"\nssh = \"ssh -p {port}\"\n")
        }
        "sftp" => format!("url = \"sftp://me@{server}/x\"\n"),
        _ => format!("url = \"rsync://{server}/module/x\"\n"),
    }
}

/// A host whose only target is at `server`, after a backup to a folder.
fn host(transport: &str, server: &str) -> Host {
    let host = Host::new();
    fs::write(host.data().join("file"), "content").unwrap();
    host.backup();
    let config = host.config();
    let at = config.find("[[target]]").unwrap();
    let target = format!("[[target]]\nname = \"away\"\n{}", lines(transport, server));
    fs::write(host.path("c.toml"), [&config[..at], &target].concat()).unwrap();
    host
}

fn command(host: &Host, arguments: &[&str]) -> Command {
    let mut command = host.command(arguments);
    command
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b");
    command
}

/// Runs the commands at once, and checks how each ends.
fn all_name_it(transport: &str, cause: &Cause, commands: &[&[&str]]) {
    let host = host(transport, &cause.server);
    std::thread::scope(|scope| {
        for arguments in commands {
            let host = &host;
            scope.spawn(move || {
                let began = Instant::now();
                let output = command(host, arguments).output().unwrap();
                let (took, (out, err)) = (began.elapsed(), texts(&output));
                let said = format!("{transport}: {arguments:?} in {took:?}:\n{out}{err}");
                assert!(took < WITHIN, "{said}");
                assert_ne!(output.status.code(), Some(0), "{said}");
                assert!(out.contains("away") || err.contains("away"), "{said}");
                let is_named = |words: &&str| out.contains(words) || err.contains(words);
                assert!(cause.says.iter().any(is_named), "{said}");
            });
        }
    });
}

/// Commands that do not lock the state directory.
const READERS: [&[&str]; 6] = [
    &["status"],
    &["list", "--target", "away"],
    &["ls", "latest", "--target", "away", "--identity", "key.txt"],
    &[
        "restore",
        "latest",
        "--target",
        "away",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ],
    &["verify"],
    &["sync", "away", "./copy"],
];
/// Commands that lock it, so one after another.
const WRITERS: [&[&str]; 3] = [
    &["prune", "--dry-run", "--policy", "last=1"],
    &["catalog", "rebuild"],
    &["--retry", "4s", "backup"],
];

fn names_it(cause: &Cause) {
    std::thread::scope(|scope| {
        for transport in TRANSPORTS {
            scope.spawn(move || all_name_it(transport, cause, &READERS));
        }
    });
    std::thread::scope(|scope| {
        for transport in TRANSPORTS {
            scope.spawn(move || {
                for writer in WRITERS {
                    all_name_it(transport, cause, &[writer]);
                }
            });
        }
    });
}

#[test]
fn a_refused_connection_is_named_within_seconds() {
    names_it(&Cause {
        server: format!("127.0.0.1:{}", free_port()),
        says: &["Connection refused"],
    });
}

#[test]
fn an_unresolvable_name_is_named_within_seconds() {
    names_it(&Cause {
        server: "nowhere.invalid:7".to_owned(),
        says: &[
            "cannot be resolved",
            "resolve hostname",
            "getaddrinfo: nowhere.invalid",
        ],
    });
}

#[test]
fn an_unroutable_address_is_named_within_seconds() {
    let hole = BlackHole::new();
    names_it(&Cause {
        server: hole.address.to_string(),
        says: &["no answer", "timed out", "timeout waiting"],
    });
}

#[test]
fn init_prints_what_it_wrote_before_it_tries_the_targets() {
    let temp = tempfile::tempdir().unwrap();
    let made = Host::within(temp, |_| {}, &["--tree", "data"]);
    fs::remove_file(made.path("c.toml")).unwrap();
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let began = Instant::now();
    let output = command(
        &made,
        &[
            "init",
            "--host",
            "h",
            "--recipient",
            &made.recipient,
            "--tree",
            "data",
            "--target",
            "s3://bucket/x",
            "--target",
            "other=s3://bucket/y",
            "--endpoint",
            &endpoint,
        ],
    )
    .output()
    .unwrap();
    let (out, err) = texts(&output);
    assert!(began.elapsed() < WITHIN, "{out}{err}");
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    let (signer, tried) = (out.find("signer "), out.find("target "));
    assert!(signer < tried && out.starts_with("config "), "{out}");
    for name in ["s3", "other"] {
        let line = format!("target   {name}: ATTENTION: ");
        let at = out.find(&line).expect(&out);
        assert!(out[at..].contains("Connection refused"), "{out}");
    }
}

#[test]
fn of_two_targets_the_refusing_one_has_its_own_cause() {
    let host = host("s3", &format!("127.0.0.1:{}", free_port()));
    let folder = format!(
        "{}\n[[target]]\nname = \"folder\"\nurl = \"file://{}\"\n",
        host.config(),
        host.path("repo").display()
    );
    fs::write(host.path("c.toml"), folder).unwrap();
    fs::write(host.data().join("file"), "other").unwrap();
    let began = Instant::now();
    let output = command(&host, &["--retry", "4s", "backup"])
        .output()
        .unwrap();
    let (out, err) = texts(&output);
    assert!(began.elapsed() < WITHIN, "{out}{err}");
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(
        out.contains("BEHIND") && out.contains("Connection refused"),
        "{out}{err}"
    );
    assert!(out.contains("published"), "{out}");
}

#[test]
fn a_scheduled_backup_waits_out_an_interruption() {
    let server = S3Server::start();
    let port = free_port();
    let host = host("s3", &format!("127.0.0.1:{port}"));
    let config = host
        .config()
        .replace("s3://bucket/x", &format!("s3://{BUCKET}/x"));
    fs::write(host.path("c.toml"), config).unwrap();
    let mut backup = command(&host, &["backup"]);
    backup.envs(server.variables());
    let running = std::thread::spawn(move || backup.output().unwrap());
    // Longer than a person waits.
    std::thread::sleep(Duration::from_secs(12));
    relay(port, server.address);
    let output = running.join().unwrap();
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(!err.contains("retrying"), "{err}");
}

/// Passes on connections to `port`, for as long as the test runs.
fn relay(port: u16, to: SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(to).unwrap();
            let ends = [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ];
            for (mut from, mut to) in ends {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.flush();
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn a_terminal_shows_what_is_retried_and_quiet_shows_nothing() {
    let host = host("s3", &format!("127.0.0.1:{}", free_port()));
    let on_a_terminal = |options: &str| {
        let line = format!(
            "{} --config c.toml {options} status",
            crate::support::host::SEALIFT
        );
        let mut script = Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env("AWS_ACCESS_KEY_ID", "a")
            .env("AWS_SECRET_ACCESS_KEY", "b")
            .env("SEALIFT_MACHINE_ID", "machine-1")
            .env("HOME", host.path("."))
            .current_dir(host.path("."))
            .stdin(std::process::Stdio::null());
        texts(&script.output().unwrap()).0
    };
    let said = on_a_terminal("");
    assert!(said.contains("away: retrying for another "), "{said}");
    assert!(
        said.contains("connection refused (Ctrl-C to stop)"),
        "{said}"
    );
    assert!(!on_a_terminal("--quiet").contains("retrying"));
}

#[test]
fn a_wrong_host_or_url_is_answered_with_what_is_there() {
    let host = Host::new();
    fs::write(host.data().join("file"), "content").unwrap();
    host.backup();
    let list = |from: &Path, more: &[&str]| {
        let from = from.display().to_string();
        let arguments = [&["list", "--accept-signer", "--from", &from], more].concat();
        let (_, err) = host.exits(&arguments, 1);
        err
    };
    let said = list(&host.path("repo"), &["--host", "dalidu"]);
    assert!(said.contains("no backups of dalidu"), "{said}");
    assert!(said.contains("there are backups of dalidou"), "{said}");
    let said = list(&host.folder(), &[]);
    assert!(said.contains("remove the last part of the URL"), "{said}");
    fs::create_dir(host.path("above")).unwrap();
    fs::rename(host.path("repo"), host.path("above/repo")).unwrap();
    let said = list(&host.path("above"), &[]);
    assert!(said.contains("the folders there are repo"), "{said}");
}
