//! A TCP proxy that cuts connections off, for tests of what a bad network does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

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
