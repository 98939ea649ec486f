//! A network that refuses, breaks, stalls or trickles.

use std::net::SocketAddr;
use std::time::Duration;

use sealift::storage::{Body, ErrorKind, PutMode, PutOutcome, TargetSpec, open_with};

use super::scene::{Expected, Scene, seconds};
use crate::support::proxy::{Mishap, Proxy, Way};
use crate::support::s3::S3Server;

/// Listings and small objects get through, an archive does not.
const LESS_THAN_AN_ARCHIVE: usize = 100_000;
/// Not even the answer to a listing gets through.
const LESS_THAN_AN_ANSWER: usize = 50;

/// An address where nothing listens, taken as long as the socket is held.
fn nobody() -> (rustix::fd::OwnedFd, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, address)
}

/// The story of a target at another endpoint than its own.
fn elsewhere(endpoint: &str, says: &[&str]) {
    let server = S3Server::start();
    let right = server.endpoint();
    let scene = Scene::with_s3(&server, &right);
    let expected = Expected {
        within: seconds(8),
        says,
    };
    scene.survives(&expected, |scene, on| match on {
        true => scene.host.edit_config(&right, endpoint),
        false => scene.host.edit_config(endpoint, &right),
    });
}

/// The story of a target behind a proxy that does this.
fn behind(mishap: Mishap, within: Duration, says: &[&str]) {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address);
    let scene = Scene::with_s3(&server, &proxy.endpoint());
    scene.survives(&Expected { within, says }, |_, on| {
        proxy.set(if on { mishap } else { Mishap::None });
    });
}

/// A restore through a proxy that does this fails and leaves nothing; without it, it does not.
fn restored_behind(mishap: Mishap, within: Duration, says: &[&str]) {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address);
    let scene = Scene::with_s3(&server, &proxy.endpoint());
    scene.change();
    // More than what five broken answers bring.
    let large = crate::support::tree::noise(9, 3_000_000);
    std::fs::write(scene.host.data().join("larger"), large).unwrap();
    scene.exits(&["backup"], 0);
    proxy.set(mishap);
    let restore = [
        "restore",
        "--target",
        "s3",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ];
    scene.fails(&restore, 1, &Expected { within, says });
    assert!(!scene.host.path("out").exists());
    scene.assert_healthy_has_all();
    proxy.set(Mishap::None);
    scene.assert_converged();
}

#[test]
fn a_refused_connection_is_told_and_made_up_for() {
    let (_held, address) = nobody();
    elsewhere(
        &format!("http://{address}"),
        &["refuse", &address.to_string()],
    );
}

#[test]
fn a_name_that_does_not_resolve_is_told_and_made_up_for() {
    elsewhere(
        "http://does-not-exist.invalid",
        &["does-not-exist.invalid", "cannot be resolved"],
    );
}

#[test]
fn an_upload_that_is_reset_is_told_and_made_up_for() {
    let mishap = Mishap::Reset(Way::Up, LESS_THAN_AN_ARCHIVE);
    behind(mishap, seconds(10), &["cannot put", "broke off"]);
}

/// A server that has the object may refuse it before it has read it, and hang up. To a sender that still writes, that
/// is a broken connection.
#[test]
fn an_upload_that_is_reset_because_it_is_there_already_has_succeeded() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address);
    let spec = TargetSpec {
        endpoint: Some(proxy.endpoint()),
        ..server.spec("some/prefix")
    };
    let target = open_with(&spec, &server.environment()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let put = |key: &str| {
        let body = Body::Bytes(vec![1; 5_000_000].into());
        runtime.block_on(target.put(key, body, PutMode::Create))
    };
    assert_eq!(put("h/there").unwrap(), PutOutcome::Written);
    proxy.set(Mishap::Reset(Way::Up, LESS_THAN_AN_ARCHIVE));
    assert_eq!(put("h/there").unwrap(), PutOutcome::Existed);
    let error = put("h/not-there").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[test]
fn an_answer_that_is_reset_is_told_and_made_up_for() {
    let mishap = Mishap::Reset(Way::Down, LESS_THAN_AN_ANSWER);
    behind(mishap, seconds(10), &["cannot list", "broke off"]);
}

#[test]
fn an_upload_that_stalls_is_given_up_in_time() {
    let mishap = Mishap::Stall(Way::Up, LESS_THAN_AN_ARCHIVE);
    behind(mishap, seconds(4), &["cannot put", "no answer", "timeout"]);
}

#[test]
fn a_target_that_stalls_is_given_up_in_time() {
    behind(
        Mishap::Stall(Way::Up, 0),
        seconds(4),
        &["cannot list", "no answer", "timeout"],
    );
}

#[test]
fn an_answer_that_stalls_is_given_up_in_time() {
    let mishap = Mishap::Stall(Way::Down, LESS_THAN_AN_ANSWER);
    behind(mishap, seconds(4), &["cannot list", "no answer", "timeout"]);
}

#[test]
fn answers_that_trickle_are_given_up_in_time() {
    let mishap = Mishap::Trickle(Duration::from_millis(100));
    behind(mishap, seconds(4), &["cannot list", "no answer", "timeout"]);
}

#[test]
fn a_restore_that_is_reset_again_and_again_says_so() {
    // Next to nothing at a time: what gets on is not given up.
    let mishap = Mishap::Reset(Way::Down, 1000);
    restored_behind(mishap, seconds(8), &["broke off"]);
}

#[test]
fn a_restore_that_stalls_is_given_up_in_time() {
    let mishap = Mishap::Stall(Way::Down, LESS_THAN_AN_ARCHIVE);
    restored_behind(mishap, seconds(8), &["no answer", "timeout"]);
}

#[test]
fn a_restore_that_trickles_is_given_up_in_time() {
    let mishap = Mishap::Trickle(Duration::from_millis(20));
    restored_behind(mishap, seconds(8), &["no answer", "timeout"]);
}

/// However much there is to fetch: a target that does not deliver is not asked for every archive.
#[test]
fn a_restore_of_much_that_stalls_is_given_up_as_soon() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address);
    let scene = Scene::with_s3(&server, &proxy.endpoint());
    let config = scene.host.config() + "\n[pack]\narchive_size = \"1MiB\"\n";
    // A busy machine may take longer than that to store its data.
    let patient = config.replace(super::scene::IMPATIENT, "");
    std::fs::write(scene.host.path("c.toml"), patient).unwrap();
    let large = crate::support::tree::noise(9, 30_000_000);
    std::fs::write(scene.host.data().join("large"), large).unwrap();
    scene.exits(&["backup"], 0);
    std::fs::write(scene.host.path("c.toml"), config).unwrap();
    proxy.set(Mishap::Stall(Way::Down, LESS_THAN_AN_ARCHIVE));
    let restore = [
        "restore",
        "--target",
        "s3",
        "--identity",
        "key.txt",
        "--to",
        "out",
    ];
    let expected = Expected {
        within: seconds(8),
        says: &["no answer", "was not requested"],
    };
    scene.fails(&restore, 1, &expected);
    proxy.set(Mishap::None);
    scene.assert_converged();
}

/// Where the connections that carry listings break in the middle of one, now and then.
#[test]
fn a_listing_that_breaks_off_costs_a_retry_only() {
    let server = S3Server::start();
    let cut: crate::support::proxy::Cut =
        std::sync::Arc::new(|number| (number % 3 == 0).then_some(600));
    let endpoint = format!(
        "http://{}",
        crate::support::proxy::start(server.address, cut)
    );
    let scene = Scene::with_s3(&server, &endpoint);
    scene.host.edit_config("retry = \"1s\"", "retry = \"5s\"");
    for _ in 0..3 {
        scene.change();
        scene.exits(&["backup"], 0);
    }
    scene.assert_converged();
}

/// At default patience a target that takes requests and answers none does not keep the others waiting for
/// minutes upon minutes. Two minutes: in the long form only.
#[test]
fn a_target_that_never_answers_keeps_nobody_waiting() {
    if !crate::support::is_long() {
        return;
    }
    let server = S3Server::start();
    let proxy = Proxy::start(server.address);
    let scene = Scene::with_s3(&server, &proxy.endpoint());
    let patient = scene.host.config().replace(super::scene::IMPATIENT, "");
    std::fs::write(scene.host.path("c.toml"), patient).unwrap();
    scene.change();
    proxy.set(Mishap::Stall(Way::Down, 0));
    let expected = Expected {
        within: seconds(150),
        says: &["within 120 s"],
    };
    scene.fails(&["backup"], 3, &expected);
    scene.assert_healthy_has_all();
}

/// Kind: an upload that breaks off is repeated by two layers at once, each for its whole time.
#[test]
fn a_large_upload_that_breaks_off_is_sent_as_often_as_a_small_one() {
    let sent = |bytes: usize| {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                // What is not read when it closes makes it a reset.
                let _ = std::io::Read::read(&mut stream, &mut [0; 1000]);
            }
        });
        let spec = TargetSpec {
            endpoint: Some(endpoint),
            retry_seconds: Some(5),
            ..TargetSpec::from_url("s3://bucket/x")
        };
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let environment = sealift::storage::Environment::from_pairs(keys);
        let target = open_with(&spec, &environment).unwrap();
        let body = Body::Bytes(vec![7; bytes].into());
        let began = std::time::Instant::now();
        let put = target.put("h/x", body, PutMode::Create);
        let error = crate::support::block_on(put).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        (
            count.load(std::sync::atomic::Ordering::Relaxed),
            began.elapsed(),
        )
    };
    let (small, _) = sent(500_000);
    let (large, took) = sent(3_000_000);
    assert!(large <= 3 * small + 3, "{large} times and {small} times");
    assert!(took < Duration::from_secs(15), "{took:?}");
}
