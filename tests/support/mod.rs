//! Helpers that the test binaries share. Each binary declares this module once, in its `main.rs`.

// Each binary uses some of it.
#![allow(dead_code)]

pub mod cage;
pub mod checker;
pub mod files;
pub mod handmade_repo;
pub mod host;
pub mod live_snapshot;
pub mod memory_target;
pub mod proxy;
pub mod random;
pub mod rsync;
pub mod s3;
pub mod slow_link;
pub mod small_disk;
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
