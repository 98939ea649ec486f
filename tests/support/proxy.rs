//! A TCP proxy for tests of what a bad network does: it cuts connections off, or stalls them, or lets a byte
//! through at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Bytes of answer that a connection may carry, by its number from 0; `None`: all.
pub type Cut = Arc<dyn Fn(usize) -> Option<usize> + Send + Sync>;

/// Listens on a port of its own and forwards to `upstream` until the process ends.
pub fn start(upstream: SocketAddr, cut: Cut) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let Ok(client) = client else { continue };
            let Ok(server) = TcpStream::connect(upstream) else {
                continue;
            };
            let limit = cut(number).unwrap_or(usize::MAX);
            let (client_2, server_2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || forward(client, server, usize::MAX));
            std::thread::spawn(move || forward(server_2, client_2, limit));
        }
    });
    address
}

/// The same for the other direction: each connection ends after `bytes` of the client's.
pub fn start_upward(upstream: SocketAddr, bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { continue };
            let Ok(server) = TcpStream::connect(upstream) else {
                continue;
            };
            let (client_2, server_2) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || forward(client, server, bytes));
            std::thread::spawn(move || forward(server_2, client_2, usize::MAX));
        }
    });
    address
}

fn forward(mut from: TcpStream, mut to: TcpStream, mut left: usize) {
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let wanted = buffer.len().min(left);
        match from.read(&mut buffer[..wanted]) {
            Ok(0) | Err(_) => break,
            Ok(length) if to.write_all(&buffer[..length]).is_err() => break,
            Ok(length) => left -= length,
        }
    }
    // A limit of 0 still has to see that there is an answer, or the request would not get through.
    if left == 0 {
        let _ = from.read(&mut buffer);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server: requests.
    Up,
    /// From the server: answers.
    Down,
}

/// What happens to each connection that is made from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    None,
    /// It is reset once this number of bytes went that way.
    Reset(Way, usize),
    /// Once this number of bytes went that way nothing moves that way any more, and it stays open.
    Stall(Way, usize),
    /// Answers come a byte at a time, with such a pause before each.
    Trickle(Duration),
}

impl Mishap {
    /// Bytes that go `way` unharmed.
    fn limit(self, way: Way) -> usize {
        match self {
            Self::Reset(its, bytes) | Self::Stall(its, bytes) if its == way => bytes,
            _ => usize::MAX,
        }
    }
}

struct Shared {
    mishap: Mutex<Mishap>,
    ended: Mutex<bool>,
    end: Condvar,
}

impl Shared {
    /// Returns when the proxy goes, or after `time`.
    fn wait(&self, time: Duration) {
        let ended = self.ended.lock().unwrap();
        let _ = self.end.wait_timeout_while(ended, time, |ended| !*ended);
    }

    fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap()
    }
}

/// Forwards to a server, and does to connections what the test asks; gone when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mishap: Mutex::new(Mishap::None),
            ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let proxy = Self {
            address,
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.has_ended() {
                    return;
                }
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(upstream)) {
                    connect(client, server, &shared);
                }
            }
        });
        proxy
    }

    pub fn set(&self, mishap: Mishap) {
        *self.shared.mishap.lock().unwrap() = mishap;
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap() = true;
        self.shared.end.notify_all();
        // So that it looks up from its listening.
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let mishap = *shared.mishap.lock().unwrap();
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    if let Mishap::Reset(..) = mishap {
        let _ = rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO));
    }
    let clones = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (up, down) = (shared.clone(), shared.clone());
    std::thread::spawn(move || carry(client, server, Way::Up, mishap, &up));
    std::thread::spawn(move || carry(clones.1, clones.0, Way::Down, mishap, &down));
}

fn carry(mut from: TcpStream, mut to: TcpStream, way: Way, mishap: Mishap, shared: &Shared) {
    let mut left = mishap.limit(way);
    let mut buffer = vec![0; 16 << 10];
    let pause = match (mishap, way) {
        (Mishap::Trickle(pause), Way::Down) => Some(pause),
        _ => None,
    };
    while left > 0 {
        let most = if pause.is_some() { 1 } else { buffer.len() };
        let wanted = most.min(left);
        let length = match from.read(&mut buffer[..wanted]) {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        if let Some(pause) = pause {
            shared.wait(pause);
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        left -= length;
    }
    match mishap {
        Mishap::Stall(..) if left == 0 => shared.wait(Duration::from_secs(600)),
        // Wakes the other way's thread; the last of the two to let the client go resets it.
        Mishap::Reset(..) => {
            let (client, server) = if way == Way::Up {
                (&from, &to)
            } else {
                (&to, &from)
            };
            let _ = client.shutdown(Shutdown::Read);
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        _ => {}
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
