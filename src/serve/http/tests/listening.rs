//! Sockets.

use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::config::{ListenAddress, ServeConfig};
use crate::serve::http::access::AccessTokens;
use crate::serve::http::listeners::{HttpListener, bind, from_number};

fn tokens(dir: &Path, text: &str) -> Result<AccessTokens, String> {
    let path = dir.join("token");
    std::fs::write(&path, text).unwrap();
    let serve = ServeConfig {
        token_file: Some(path),
        ..ServeConfig::default()
    };
    AccessTokens::load(&serve).map_err(|error| error.to_string())
}

fn inside<T>(work: impl FnOnce() -> T) -> T {
    let runtime = crate::base::runtime::runtime().unwrap();
    let _inside = runtime.enter();
    work()
}

#[test]
fn other_machines_need_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let everywhere: ListenAddress = "0.0.0.0:0".parse().unwrap();
    let refused =
        inside(|| bind(std::slice::from_ref(&everywhere), &AccessTokens::default())).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot listen on 0.0.0.0:0 without a token: anyone who reaches this address could start backups"
    );
    assert_eq!(
        refused.next(),
        Some("token_file in [serve], or listen on 127.0.0.1")
    );
    let good = tokens(dir.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
    assert_eq!(inside(|| bind(&[everywhere], &good)).unwrap().len(), 1);
    let short = tokens(dir.path(), "short").unwrap_err();
    assert!(short.contains("fewer than 32 characters"), "{short}");
    let odd = tokens(dir.path(), "0123456789abcdef 0123456789abcdef").unwrap_err();
    assert!(odd.contains("blank"), "{odd}");
    let serve = ServeConfig {
        token_file: Some(dir.path().join("gone")),
        ..ServeConfig::default()
    };
    assert!(
        AccessTokens::load(&serve)
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
    let serve = ServeConfig {
        read_token_file: Some(dir.path().join("token")),
        ..ServeConfig::default()
    };
    std::fs::write(dir.path().join("token"), "0123456789abcdef0123456789abcdef").unwrap();
    let alone = AccessTokens::load(&serve).unwrap_err().to_string();
    assert!(alone.contains("needs token_file"), "{alone}");
}

#[test]
fn a_taken_port_names_its_owner() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = inside(|| bind(&[ListenAddress::Tcp(address)], &AccessTokens::default()));
    let refused = refused.unwrap_err().to_string();
    let pid = std::process::id();
    assert!(
        refused.starts_with(&format!("cannot listen on {address}: ")),
        "{refused}"
    );
    assert!(
        refused.ends_with(&format!("(pid {pid}) is there already")),
        "{refused}"
    );
}

#[test]
fn a_socket_in_the_file_system_replaces_an_abandoned_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let address = ListenAddress::Unix(path.clone());
    inside(|| {
        let listeners = bind(std::slice::from_ref(&address), &AccessTokens::default()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let refused = bind(&[address], &AccessTokens::default()).unwrap_err();
        assert!(
            refused.to_string().contains("is there already"),
            "{refused}"
        );
        drop(listeners);
    });
    assert!(!path.exists());
}

#[test]
fn sockets_of_systemd_are_taken_if_they_listen() {
    let dir = tempfile::tempdir().unwrap();
    inside(|| {
        let none = AccessTokens::default();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let taken = from_number(tcp.into_raw_fd(), &none).unwrap();
        assert_eq!(taken.local_addr(), Some(address));
        let path = dir.path().join("passed.sock");
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let taken = from_number(unix.into_raw_fd(), &none).unwrap();
        assert!(matches!(taken, HttpListener::Unix(_, None)));
        // It is systemd's, so it stays.
        drop(taken);
        assert!(path.exists());
        let open = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let refused = from_number(open.into_raw_fd(), &none)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("without a token"), "{refused}");
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = from_number(file.into_raw_fd(), &none)
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with("cannot use socket "), "{refused}");
    });
}

#[test]
fn a_program_of_this_machine_asks_through_the_socket() {
    let agent = super::stand_in::TestAgent::new();
    let path = agent.dir.path().join("http.sock");
    let runtime = agent.runtime.as_ref().unwrap();
    let _inside = runtime.enter();
    let listeners = bind(
        &[ListenAddress::Unix(path.clone())],
        &AccessTokens::default(),
    )
    .unwrap();
    let (_end, shutdown) = tokio::sync::watch::channel(false);
    runtime.spawn(crate::serve::http::serve(
        agent.service.clone(),
        listeners,
        shutdown,
    ));
    let mut stream = UnixStream::connect(&path).unwrap();
    let head = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}
