//! Connections: how many there are, how long they may take, and their end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

use super::client::Connected;
use super::dispatch::answer;
use super::listeners::HttpListener;
use super::timed_stream::TimedStream;
use super::{HttpParts, is_over};

/// Bytes of a request's line and headers.
const HEADER_BYTES: usize = 16 << 10;
/// How long connections may go on after the agent was asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long the next connection waits if the system refuses one, such as for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a client that finds no place has to send its request and read the refusal.
const REFUSAL: Duration = Duration::from_secs(2);

/// Accepts connections until `shutdown` is true, and then waits for those that are open.
pub(super) async fn accept(
    http: Arc<HttpParts>,
    listener: HttpListener,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener) => accepted,
            () = is_over(&mut shutdown) => break,
        };
        // Those that have ended are not kept.
        while open.try_join_next().is_some() {}
        let Ok((stream, connected)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        match Arc::clone(&http.places.connections).try_acquire_owned() {
            Ok(place) => {
                let end = shutdown.clone();
                open.spawn(serve_one(Arc::clone(&http), stream, connected, place, end));
            }
            Err(_) => {
                // Beyond these, a client sees the connection closed.
                if let Ok(place) = Arc::clone(&http.places.refusals).try_acquire_owned() {
                    open.spawn(refuse(stream, place));
                }
            }
        }
    }
    drop(listener);
    let ended = async { while open.join_next().await.is_some() {} };
    // Dropping the set ends those that are still open.
    let _ = tokio::time::timeout(GRACE, ended).await;
}

/// A connection of either kind.
type AnyStream = Box<dyn DuplexStream>;

/// What a connection is read from and written to.
trait DuplexStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> DuplexStream for S {}

async fn next(listener: &HttpListener) -> std::io::Result<(AnyStream, Connected)> {
    match listener {
        HttpListener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            let own: Option<IpAddr> = stream.local_addr().ok().map(|own| own.ip());
            let connected = Connected {
                peer: Some(peer.ip().to_canonical()),
                own,
            };
            // Answers are small, and a client waits for them.
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), connected))
        }
        HttpListener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let connected = Connected {
                peer: None,
                own: None,
            };
            Ok((Box::new(stream), connected))
        }
    }
}

async fn serve_one(
    http: Arc<HttpParts>,
    stream: AnyStream,
    connected: Connected,
    _place: OwnedSemaphorePermit,
    mut shutdown: watch::Receiver<bool>,
) {
    let limits = http.limits;
    let stream = TokioIo::new(TimedStream::new(stream, limits.write));
    let end = shutdown.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (http, end) = (Arc::clone(&http), end.clone());
        async move {
            let request = request.map(Body::new);
            Ok::<_, Infallible>(answer(&http, connected, end, request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_header_size(HEADER_BYTES)
        .max_buf_size(2 * HEADER_BYTES)
        .serve_connection(stream, service);
    tokio::pin!(connection);
    tokio::select! {
        // An error is the client's: it sent nonsense, or it is gone.
        _ = connection.as_mut() => {}
        () = is_over(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Tells a client that there is no place for it.
async fn refuse(mut stream: AnyStream, _place: OwnedSemaphorePermit) {
    const BODY: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"overloaded","detail":"too many connections are open","next":"try again in a second"}"#;
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
         Content-Type: application/problem+json\r\nContent-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\n\r\n",
        BODY.len()
    );
    let say = async {
        // A close with unread bytes would make the client lose the answer.
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(format!("{head}{BODY}").as_bytes()).await;
        let _ = stream.shutdown().await;
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
    };
    let _ = tokio::time::timeout(REFUSAL, say).await;
}
