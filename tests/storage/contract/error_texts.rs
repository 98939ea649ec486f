//! The last word when a server does not do what it was asked to: what happened, where, and how often it was
//! tried for how long.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealift::base::rate_schedule::Timetable;
use sealift::storage::{Environment, PutMode, PutOutcome, TargetSpec, open_with};

use super::{block_on, text};
use crate::support::is_long;
use crate::support::s3::{S3Server, error_answer};

/// What listing and putting say, tried for two seconds; with a limit and without.
fn complaints(address: SocketAddr) -> Vec<String> {
    let plain = TargetSpec {
        endpoint: Some(format!("http://{address}")),
        timeout_seconds: Some(1),
        retry_seconds: Some(2),
        ..TargetSpec::from_url("s3://bucket/prefix")
    };
    let limited = TargetSpec {
        upload: Some(Timetable::constant(1 << 20)),
        ..plain.clone()
    };
    let pairs = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let targets =
        [plain, limited].map(|spec| open_with(&spec, &Environment::from_pairs(pairs)).unwrap());
    block_on(async {
        let said = targets.iter().map(|target| async {
            let list = target.list("h/").await.unwrap_err();
            let put = target.put("h/x", text("x"), PutMode::Create).await;
            [list.source.to_string(), put.unwrap_err().source.to_string()]
        });
        futures::future::join_all(said).await.concat()
    })
}

fn assert_all_say(complaints: &[String], words: &[&str]) {
    for said in complaints {
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(
            !said.contains("max_retries") && !said.contains("Generic"),
            "{said}"
        );
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn nobody_listens() {
    let (listener, address) = listener();
    drop(listener);
    let server = format!("{address} refuses the connection: nothing is listening on that port");
    assert_all_say(&complaints(address), &[&server, "; tried ", " times in "]);
}

#[test]
fn nobody_answers() {
    let (_listener, address) = listener();
    let server = format!("no answer from {address} within the target's `timeout`");
    assert_all_say(&complaints(address), &[&server, "; tried ", " times in "]);
}

#[test]
fn the_server_is_at_a_loss() {
    let (listener, address) = listener();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 16 << 10]);
            let body = "<Error><Code>SlowDown</Code><Message>Reduce your rate.</Message></Error>";
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 503 Slow Down\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            let _ = client.write_all(answer.as_bytes());
        }
    });
    let said = "answered 503 Service Unavailable (SlowDown: Reduce your rate.); tried ";
    assert_all_say(&complaints(address), &["too busy", said, " times in "]);
}

/// `retry` is a time: however often it takes to ask until then. In the long form a minute.
#[test]
fn a_server_that_comes_back_within_the_budget_is_waited_for() {
    let away = Duration::from_secs(if is_long() { 60 } else { 4 });
    let began = Instant::now();
    let server = S3Server::start_with(Arc::new(move |_| {
        (began.elapsed() < away).then(|| error_answer(503, "ServiceUnavailable"))
    }));
    let spec = TargetSpec {
        retry_seconds: Some(180),
        ..server.spec("x")
    };
    let target = open_with(&spec, &server.environment()).unwrap();
    let put = block_on(target.put("h/x", text("x"), PutMode::Create));
    assert_eq!(put.unwrap(), PutOutcome::Written);
    assert!(began.elapsed() >= away);
}
