//! The bytes of a transfer are counted while it runs, over each kind of target.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use sealift::base::progress::{Progress, ProgressEvent};
use sealift::storage::{Body, Meter, PutMode, Storage, TargetSpec, metered, open_with};

use super::{Backend, folder, noise, rsync_daemon, rsync_over_ssh, s3_server, sftp_over_ssh};
use crate::support::block_on;
use crate::support::gate::Gate;
use crate::support::s3::S3Server;

const BYTES: usize = 12 << 20;

/// The sum of the changes after each event.
#[derive(Default)]
struct Sums {
    now: AtomicI64,
    all: Mutex<Vec<i64>>,
}

impl Progress for Sums {
    fn report(&self, event: &ProgressEvent<'_>) {
        if let ProgressEvent::BytesInFlight { change, .. } = event {
            let now = self.now.fetch_add(*change, Ordering::SeqCst) + change;
            self.all.lock().unwrap().push(now);
        }
    }
}

/// Awaits `work` in a meter. Returns the sums on the way.
fn sums<T>(
    make: fn(&Arc<dyn Progress>, &str) -> Arc<Meter>,
    work: impl Future<Output = T>,
) -> (T, Vec<i64>) {
    let sums = Arc::new(Sums::default());
    let progress: Arc<dyn Progress> = sums.clone();
    let meter = make(&progress, "t");
    let done = block_on(metered(Some(&meter), work));
    meter.close();
    let all = sums.all.lock().unwrap().clone();
    (done, all)
}

/// A put is counted piece by piece, in full and once, and is all taken back when the caller counts it itself.
fn counts_a_put(backend: Backend, least_pieces: usize) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archive");
    std::fs::write(&file, noise(7, BYTES)).unwrap();
    let put = backend
        .target
        .put("h/archives/x", Body::File(file), PutMode::Create);
    let (put, sums) = sums(Meter::of_put, put);
    put.unwrap();
    assert_eq!(sums.last(), Some(&0), "{sums:?}");
    assert_eq!(sums.iter().max(), Some(&(BYTES as i64)), "{sums:?}");
    assert!(sums.iter().all(|sum| *sum >= 0), "{sums:?}");
    assert!(sums.len() > least_pieces, "{sums:?}");
}

#[test]
fn a_folder_counts_a_put() {
    counts_a_put(folder(), 3);
}

#[test]
fn s3_counts_a_put() {
    counts_a_put(s3_server(), 40);
}

/// A handshake takes two round trips, with TLS three.
#[test]
fn a_counted_put_and_other_requests_share_a_connection() {
    let server = S3Server::start();
    let gate = Gate::new(server.address);
    let spec = TargetSpec {
        endpoint: Some(format!("http://{}", gate.address)),
        ..server.spec("x")
    };
    let target = open_with(&spec, &server.environment()).unwrap();
    // Counted piece by piece, and not yet a put that has a longer deadline.
    let body = || Body::Bytes(noise(7, 2 << 20).into());
    let requests = async {
        target.list("h/").await.unwrap();
        for name in ["a", "b"] {
            let put = target.put(name, body(), PutMode::Replace);
            put.await.unwrap();
        }
        target.list("h/").await.unwrap();
    };
    let (_, sums) = sums(Meter::of_put, requests);
    assert!(sums.len() > 8, "{sums:?}");
    assert_eq!(gate.connections(), 1);
}

#[test]
fn sftp_counts_a_put() {
    counts_a_put(sftp_over_ssh(), 40);
}

#[test]
fn rsync_over_ssh_counts_a_put() {
    // It reports once a second, and at the end.
    counts_a_put(rsync_over_ssh(), 1);
}

#[test]
fn rsync_counts_what_it_fetched_until_it_is_passed_on() {
    let backend = rsync_daemon();
    let target: &Arc<dyn Storage> = &backend.target;
    let content = noise(7, BYTES);
    let body = Body::Bytes(content.clone().into());
    block_on(target.put("h/archives/x", body, PutMode::Create)).unwrap();
    let read = async {
        let mut stream = target.stream("h/archives/x", 0).await.unwrap();
        let mut read = Vec::new();
        while let Some(piece) = stream.next().await {
            read.extend_from_slice(&piece.unwrap());
        }
        read
    };
    let (read, sums) = sums(Meter::of_reads, read);
    assert!(read == content);
    assert_eq!(sums.iter().max(), Some(&(BYTES as i64)), "{sums:?}");
    assert_eq!(sums.last(), Some(&0), "{sums:?}");
    // It falls as the pieces come.
    assert!(
        sums.iter().any(|sum| (1..BYTES as i64).contains(sum)),
        "{sums:?}"
    );
}
