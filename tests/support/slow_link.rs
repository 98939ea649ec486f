//! A TCP proxy that is a slow, far link: a number of bytes a second each way, for all connections together,
//! and a wait before each connection and each request.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// One direction of the link, shared by all connections.
struct Way {
    bytes_per_second: f64,
    /// When all that was sent so far has gone through.
    free: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Way {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second as f64,
            free: Mutex::new(Instant::now()),
            bytes: AtomicU64::new(0),
        }
    }

    /// Returns when `bytes` more have gone through, in the order of the calls. An idle link saves
    /// nothing up, but for what a sleep was too long.
    fn pass(&self, bytes: usize) {
        const SLACK: Duration = Duration::from_millis(5);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let until = {
            let mut free = self.free.lock().unwrap();
            let earliest = Instant::now().checked_sub(SLACK).unwrap();
            *free = (*free).max(earliest) + takes;
            *free
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

pub struct SlowLink {
    pub address: SocketAddr,
    pub bytes_per_second: u64,
    up: Arc<Way>,
    down: Arc<Way>,
    requests: Arc<AtomicU64>,
}

impl SlowLink {
    /// Listens on a port of its own and forwards to `upstream` until the process ends.
    pub fn start(upstream: SocketAddr, bytes_per_second: u64, latency: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let link = Self {
            address: listener.local_addr().unwrap(),
            bytes_per_second,
            up: Arc::new(Way::new(bytes_per_second)),
            down: Arc::new(Way::new(bytes_per_second)),
            requests: Arc::default(),
        };
        let (up, down, requests) = (link.up.clone(), link.down.clone(), link.requests.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(upstream)) else {
                    continue;
                };
                let _ = client.set_nodelay(true).and(server.set_nodelay(true));
                let (up, down, requests) = (up.clone(), down.clone(), requests.clone());
                thread::spawn(move || {
                    thread::sleep(latency); // the handshake
                    connect(client, server, [up, down], latency, requests);
                });
            }
        });
        link
    }

    /// Bytes that went through so far: up, and down.
    pub fn bytes(&self) -> (u64, u64) {
        let bytes = |way: &Way| way.bytes.load(Ordering::Relaxed);
        (bytes(&self.up), bytes(&self.down))
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn connect(
    client: TcpStream,
    server: TcpStream,
    [up, down]: [Arc<Way>; 2],
    latency: Duration,
    requests: Arc<AtomicU64>,
) {
    // Whether the server spoke last: what the client says next is a new request.
    let answered = Arc::new(AtomicBool::new(true));
    let (client_2, server_2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let heard = answered.clone();
    thread::spawn(move || {
        forward(server_2, client_2, &down, || {
            heard.store(true, Ordering::Relaxed)
        });
    });
    forward(client, server, &up, || {
        if answered.swap(false, Ordering::Relaxed) {
            requests.fetch_add(1, Ordering::Relaxed);
            thread::sleep(latency);
        }
    });
}

fn forward(mut from: TcpStream, mut to: TcpStream, way: &Way, before: impl Fn()) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                before();
                way.pass(length);
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
