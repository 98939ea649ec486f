//! A TCP port in front of a server. Closed, it refuses connections, as a machine that is away does, and those that were
//! open end.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::free_port;

pub struct Gate {
    pub address: SocketAddr,
    upstream: SocketAddr,
    guard: Option<Guard>,
}

/// The thread that lets connections through, while the gate is open.
struct Guard {
    is_closing: Arc<AtomicBool>,
    passed: Arc<Mutex<Vec<TcpStream>>>,
    thread: JoinHandle<()>,
}

impl Gate {
    /// Returns an open gate in front of `upstream`.
    pub fn new(upstream: SocketAddr) -> Self {
        let mut gate = Self {
            address: (Ipv4Addr::LOCALHOST, free_port()).into(),
            upstream,
            guard: None,
        };
        gate.open();
        gate
    }

    pub fn open(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        let (is_closing, passed) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (closing, streams, upstream) =
            (Arc::clone(&is_closing), Arc::clone(&passed), self.upstream);
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                let _ = client.and_then(|client| pass(client, upstream, &streams));
            }
        });
        self.guard = Some(Guard {
            is_closing,
            passed,
            thread,
        });
    }

    /// Number of connections that it let through since it was opened.
    pub fn connections(&self) -> usize {
        let both_ends = |guard: &Guard| guard.passed.lock().unwrap().len();
        self.guard.as_ref().map_or(0, both_ends) / 2
    }

    pub fn close(&mut self) {
        let Some(guard) = self.guard.take() else {
            return;
        };
        guard.is_closing.store(true, Ordering::SeqCst);
        // It wakes the thread, which drops the listener.
        let _ = TcpStream::connect(self.address);
        guard.thread.join().unwrap();
        for stream in guard.passed.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.close();
    }
}

fn pass(client: TcpStream, upstream: SocketAddr, passed: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    let (client_2, server_2) = (client.try_clone()?, server.try_clone()?);
    passed
        .lock()
        .unwrap()
        .extend([client.try_clone()?, server.try_clone()?]);
    thread::spawn(move || forward(client, server));
    thread::spawn(move || forward(server_2, client_2));
    Ok(())
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
