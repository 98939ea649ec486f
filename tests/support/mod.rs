//! Helpers that the test binaries share. Each binary declares this module once, in its `main.rs`.

// Each binary uses some of it.
#![allow(dead_code)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sealift::state::State;

pub mod atocore;
pub mod cage;
pub mod checker;
pub mod cost;
pub mod files;
pub mod gate;
pub mod handmade_repo;
pub mod host;
pub mod live_snapshot;
pub mod memory_target;
pub mod proxy;
pub mod random;
pub mod rsync;
pub mod s3;
pub mod service;
pub mod slow_link;
pub mod small_disk;
pub mod strace;
pub mod tree;
pub mod turns;
pub mod watched_target;

/// Whether the long forms of tests are wanted (`./test --long`).
pub fn is_long() -> bool {
    std::env::var_os("SEALIFT_TEST_LONG").is_some_and(|value| value == "1")
}

/// Whether root runs this test. Prints that `what` is skipped if not.
pub fn is_root_for(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: {what} takes root");
    }
    is_root
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Opens a state directory. A child that another test of this process starts holds each lock of the process until it
/// becomes another program, so a directory that is in use is tried again for two seconds.
pub fn open_state(dir: &Path) -> Result<State, String> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match State::open(dir) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            result => return result.map_err(|error| error.to_string()),
        }
    }
}

/// Runs `test`, named in full, in a process of its own, because it looks at all children of its process. Returns
/// whether it did: in that process it returns false, as under nextest, where each test has its own.
pub fn ran_in_own_process(test: &str) -> bool {
    const INSIDE: &str = "SEALIFT_TEST_IN_OWN_PROCESS";
    let is_alone = |name| std::env::var_os(name).is_some();
    if is_alone(INSIDE) || is_alone("NEXTEST") {
        return false;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) = host::texts(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{test} is no test: {out}");
    true
}
