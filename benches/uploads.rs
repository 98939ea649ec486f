//! Uploads that are counted, against uploads that nothing counts: `cargo bench --bench uploads`.
//!
//! A counted upload goes through a client of Sealift's own, in pieces (`src/storage/http/client.rs`); any other is handed
//! to `object_store` whole. Both send the same objects to a server in this process, which reads and forgets them, in turns.
//! Printed are the shortest time of each, its processor time (of client and server), and the ratio.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![allow(unreachable_pub, missing_docs)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use sealift::base::progress::{Progress, ProgressEvent};
use sealift::storage::{
    Body, Environment, Meter, PutMode, Storage, TargetSpec, metered, open_with,
};

const OBJECT_BYTES: usize = 64 << 20;
const OBJECTS: usize = 8;
const ROUNDS: usize = 7;

/// Connections that the server accepted.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Serves until the process ends. With `tls`, the certificate and key of that directory.
fn serve(tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, tls) = (socket.unwrap(), tls.clone());
            CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || {
                let _ = match tls {
                    None => answer(socket),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        answer(rustls::StreamOwned::new(connection, socket))
                    }
                };
            });
        }
    });
    address
}

/// Reads requests with their bodies, and accepts each.
fn answer(mut socket: impl Read + Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    loop {
        let head = loop {
            let text = &buffer[..filled];
            if let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match socket.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                length => filled += length,
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.trim().parse::<usize>().unwrap());
        let mut left = length - (filled - head);
        filled = 0;
        while left > 0 {
            let most = buffer.len().min(left);
            match socket.read(&mut buffer[..most])? {
                0 => return Ok(()),
                length => left -= length,
            }
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n")?;
        socket.flush()?;
    }
}

/// A certificate for this machine, in `dir`.
fn certificate(dir: &Path) -> Arc<rustls::ServerConfig> {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem \
        -out cert.pem -days 3 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -addext basicConstraints=critical,CA:FALSE";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output();
    assert!(made.unwrap().status.success());
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(dir.join("cert.pem")).unwrap();
    let chain = chain.map(|one| one.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(
        config
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap(),
    )
}

struct Ignored(AtomicU64);

impl Progress for Ignored {
    fn report(&self, _event: &ProgressEvent<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Puts all objects, `at_once` at a time. Returns the time, and the processor time.
async fn upload(
    target: &Arc<dyn Storage>,
    object: &Bytes,
    counts: bool,
    at_once: usize,
) -> [f64; 2] {
    let progress: Arc<dyn Progress> = Arc::new(Ignored(AtomicU64::new(0)));
    let (began, before) = (Instant::now(), processor());
    futures::stream::iter(0..OBJECTS)
        .map(|number| {
            let meter = counts.then(|| Meter::of_put(&progress, "s3"));
            let body = Body::Bytes(object.clone());
            async move {
                let key = format!("h/archives/{number}");
                metered(meter.as_ref(), target.put(&key, body, PutMode::Replace)).await
            }
        })
        .buffer_unordered(at_once)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .unwrap();
    [
        began.elapsed().as_secs_f64(),
        (processor() - before).as_secs_f64(),
    ]
}

fn processor() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

fn compare(name: &str, spec: &TargetSpec, environment: &Environment, at_once: usize) {
    let object = Bytes::from(vec![7; OBJECT_BYTES]);
    let target = open_with(spec, environment).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let before = CONNECTIONS.load(Ordering::Relaxed);
    let mut best = [[f64::MAX; 2]; 2];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let way = (round + turn) % 2;
            let took = runtime.block_on(upload(&target, &object, way == 1, at_once));
            for (best, took) in best[way].iter_mut().zip(took) {
                *best = best.min(took);
            }
        }
    }
    let connections = CONNECTIONS.load(Ordering::Relaxed) - before;
    let mebibytes = ((OBJECT_BYTES * OBJECTS) >> 20) as f64;
    let [[plain, plain_cpu], [counted, counted_cpu]] = best;
    println!(
        "{name:<22} {:>6.0} MiB/s whole, {:>6.0} MiB/s counted: time {:.3}, processor {plain_cpu:.2} s and \
         {counted_cpu:.2} s: {:.3}; {connections} connections",
        mebibytes / plain,
        mebibytes / counted,
        counted / plain,
        counted_cpu / plain_cpu,
    );
}

fn main() {
    // `cargo test --benches` runs this, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tls = serve(Some(certificate(dir.path())));
    let clear = serve(None);
    let bundle = dir.path().join("cert.pem").display().to_string();
    let environment = Environment::from_pairs([
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_CA_BUNDLE", &bundle),
    ]);
    let s3 = |endpoint: String| TargetSpec {
        endpoint: Some(endpoint),
        ..TargetSpec::from_url("s3://bucket/x")
    };
    for at_once in [1, 2] {
        let name = |kind: &str| format!("{kind}, {at_once} at once");
        let webdav = TargetSpec::from_url(&format!("http://{clear}/x"));
        compare(&name("WebDAV"), &webdav, &environment, at_once);
        let clear = s3(format!("http://{clear}"));
        compare(&name("S3"), &clear, &environment, at_once);
        let tls = s3(format!("https://localhost:{}", tls.port()));
        compare(&name("S3, TLS"), &tls, &environment, at_once);
    }
}
