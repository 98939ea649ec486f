//! The HTTP client of `object_store`, and a client with a limited rate.
//!
//! `object_store` hands over a request's body whole, and `reqwest` passes it to the socket whole,
//! so a limit cannot be wrapped around its client. The limited client builds the `reqwest` request
//! itself, with a body that comes in pieces as the throttle admits them. The body's length is known
//! and sent, so nothing is sent chunked, and the signature, which was made before, covers the same
//! bytes.
//!
//! A deadline for the whole request would end every transfer that is slow on purpose. Here the
//! deadline applies to each period in which no byte moves, not counting the wait for the throttle.
//!
//! Without a limit, `object_store` passes every request to the client itself, except a large upload
//! that something counts ([`Counting`]): a body that is passed on whole cannot be counted either.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep};

use crate::storage::meter::{self, TransferAttempt};
use crate::storage::throttle::{Limits, Throttle, next_piece};

/// A smaller upload is counted only once it is done.
const LEAST_COUNTED_BYTES: usize = 1 << 20;
/// Bytes of a counted upload that are passed on at once.
const COUNTED_PIECE_BYTES: usize = 256 << 10;

/// Makes the HTTP client of a target: one that counts large uploads, or with limits the limited
/// one.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(in crate::storage) limits: Limits,
    pub user_agent: &'static str,
    pub connect_timeout: Duration,
    /// Longest time without a byte moving.
    pub idle_timeout: Duration,
    /// Certificates of additional authorities, in PEM form.
    pub roots: Arc<[u8]>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        if self.limits.are_none() {
            let client = self.client(options, Some(self.idle_timeout))?;
            return Ok(HttpClient::new(Counting {
                plain: HttpClient::new(client.clone()),
                client,
            }));
        }
        Ok(HttpClient::new(Limited {
            client: self.client(options, None)?,
            limits: self.limits.clone(),
            idle_timeout: self.idle_timeout,
        }))
    }
}

impl Connector {
    /// Returns a client whose requests end after `deadline`. `None`: they have no deadline.
    fn client(
        &self,
        options: &ClientOptions,
        deadline: Option<Duration>,
    ) -> object_store::Result<reqwest::Client> {
        let allows_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let headers = options.get_default_headers().cloned().unwrap_or_default();
        let failed = |error: reqwest::Error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        };
        let roots = reqwest::Certificate::from_pem_bundle(&self.roots).map_err(failed)?;
        let builder = reqwest::Client::builder();
        let (builder, connect_timeout) = match deadline {
            Some(deadline) => (
                builder.timeout(deadline),
                self.connect_timeout.min(deadline),
            ),
            None => (builder, self.connect_timeout),
        };
        let client = builder
            .tls_certs_merge(roots)
            .user_agent(self.user_agent)
            .default_headers(headers)
            .connect_timeout(connect_timeout)
            .https_only(allows_http.as_deref() != Some("true"))
            .http1_only()
            // A body that is decompressed on the way has another length than the object.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build();
        client.map_err(failed)
    }
}

/// The client without a limit, which counts large uploads.
#[derive(Debug)]
struct Counting {
    /// Makes all other requests, with the same connections.
    plain: HttpClient,
    client: reqwest::Client,
}

#[async_trait::async_trait]
impl HttpService for Counting {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let attempt = meter::attempt();
        if !attempt.counts() || request.body().content_length() < LEAST_COUNTED_BYTES {
            return self.plain.execute(request).await;
        }
        let attempt = Arc::new(attempt);
        let (mut request, body) = without_body(request)?;
        *request.body_mut() = Some(reqwest::Body::wrap(CountedBody {
            inner: body,
            rest: Bytes::new(),
            attempt: Arc::clone(&attempt),
        }));
        let answer = self.client.execute(request).await;
        let answer = settled(answer.map_err(failure), &attempt)?;
        Ok(response(answer, |body| Paced::new(body, failure)))
    }
}

/// Returns a `reqwest` request without its body, and the body.
fn without_body(request: HttpRequest) -> Result<(reqwest::Request, HttpRequestBody), HttpError> {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse();
    let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    Ok((request, body))
}

/// Returns an answer whose body is read as `paced` says.
fn response(
    mut answer: reqwest::Response,
    paced: impl FnOnce(reqwest::Body) -> Paced<reqwest::Body>,
) -> HttpResponse {
    let mut response = HttpResponse::new(HttpResponseBody::from(Bytes::new()));
    *response.status_mut() = answer.status();
    std::mem::swap(response.headers_mut(), answer.headers_mut());
    *response.body_mut() = HttpResponseBody::new(paced(reqwest::Body::from(answer)));
    response
}

/// Keeps what an upload counted if the server accepted it, or takes it back.
fn settled(
    answer: Result<reqwest::Response, HttpError>,
    attempt: &TransferAttempt,
) -> Result<reqwest::Response, HttpError> {
    match &answer {
        Ok(answer) if answer.status().is_success() => attempt.keep(),
        _ => attempt.take_back(),
    }
    answer
}

/// A body that is counted as the connection takes it, in pieces.
struct CountedBody {
    inner: HttpRequestBody,
    /// Bytes of the inner body that are not passed on yet.
    rest: Bytes,
    attempt: Arc<TransferAttempt>,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(COUNTED_PIECE_BYTES));
        this.attempt.moved(piece.len());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        size_hint(&self.inner, self.rest.len())
    }
}

/// Returns the size of what is left of a body: the `rest` at hand and what `inner` still brings.
fn size_hint(inner: &impl Body, rest: usize) -> SizeHint {
    let rest = rest as u64;
    let inner = inner.size_hint();
    let mut hint = SizeHint::new();
    hint.set_lower(inner.lower().saturating_add(rest));
    if let Some(upper) = inner.upper().and_then(|upper| upper.checked_add(rest)) {
        hint.set_upper(upper);
    }
    hint
}

/// The client with a limited rate.
#[derive(Debug)]
struct Limited {
    client: reqwest::Client,
    limits: Limits,
    idle_timeout: Duration,
}

/// No byte moved for this long.
#[derive(Debug, thiserror::Error)]
#[error("nothing moved for {} s", .0.as_secs())]
struct Idle(Duration);

impl Idle {
    fn error(timeout: Duration) -> HttpError {
        HttpError::new(HttpErrorKind::Timeout, Self(timeout))
    }
}

#[async_trait::async_trait]
impl HttpService for Limited {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let attempt = Arc::new(meter::attempt());
        let (mut request, body) = without_body(request)?;
        let moved = Moved::now();
        *request.body_mut() = Some(match body.content_length() {
            0 => reqwest::Body::from(Bytes::new()),
            _ => reqwest::Body::wrap(Paced {
                throttle: self.limits.upload.clone(),
                moved: Some(moved.clone()),
                attempt: Some(Arc::clone(&attempt)),
                ..Paced::new(body, std::convert::identity)
            }),
        });
        let answer = settled(self.answer(request, &moved).await, &attempt)?;
        Ok(response(answer, |body| Paced {
            throttle: self.limits.download.clone(),
            idle_timeout: Some(self.idle_timeout),
            ..Paced::new(body, failure)
        }))
    }
}

impl Limited {
    /// Sends `request` and waits for the head of its answer, as long as the body moves.
    async fn answer(
        &self,
        request: reqwest::Request,
        moved: &Moved,
    ) -> Result<reqwest::Response, HttpError> {
        let mut sending = std::pin::pin!(self.client.execute(request));
        loop {
            let deadline = moved.last() + self.idle_timeout;
            match tokio::time::timeout_at(deadline, &mut sending).await {
                Ok(answer) => return answer.map_err(failure),
                Err(_) if moved.last() + self.idle_timeout > Instant::now() => {}
                Err(_) => return Err(Idle::error(self.idle_timeout)),
            }
        }
    }
}

/// Classifies an error as `object_store` classifies those of its own client. Every object's name is
/// derived from its content, so a request that broke off may be sent again.
fn failure(error: reqwest::Error) -> HttpError {
    let kind = match () {
        () if error.is_timeout() => HttpErrorKind::Timeout,
        () if error.is_connect() => HttpErrorKind::Connect,
        () if error.is_decode() => HttpErrorKind::Decode,
        // What is sent may have arrived: `Request` would be sent again without end.
        () => match kind_of_causes(&error) {
            HttpErrorKind::Unknown if !error.is_request() => HttpErrorKind::Interrupted,
            kind => kind,
        },
    };
    // A signed URL is a secret.
    HttpError::new(kind, error.without_url())
}

/// Returns the kind that the causes of `error` show; `Unknown` if they show none.
fn kind_of_causes(error: &reqwest::Error) -> HttpErrorKind {
    use std::io::ErrorKind;
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<hyper::Error>() {
            if cause.is_closed() || cause.is_incomplete_message() || cause.is_body_write_aborted() {
                return HttpErrorKind::Request;
            }
            if cause.is_timeout() {
                return HttpErrorKind::Timeout;
            }
        }
        if let Some(cause) = cause.downcast_ref::<std::io::Error>() {
            match cause.kind() {
                ErrorKind::TimedOut => return HttpErrorKind::Timeout,
                ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => return HttpErrorKind::Interrupted,
                _ => {}
            }
        }
        source = cause.source();
    }
    HttpErrorKind::Unknown
}

/// The time at which a request's body last moved, or will move next if it waits for the throttle.
#[derive(Debug, Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, time: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

/// A body that comes in pieces, each when the throttle admits it.
struct Paced<B: Body> {
    inner: B,
    failure: fn(B::Error) -> HttpError,
    throttle: Option<Arc<Throttle>>,
    /// Shared with the task that waits for the answer. `None`: nothing waits.
    moved: Option<Moved>,
    /// Longest time for which the inner body may bring nothing. `None`: no limit.
    idle_timeout: Option<Duration>,
    /// The end of that time, while the inner body is pending.
    idle: Option<Pin<Box<Sleep>>>,
    /// Counts the pieces. `None`: nothing does.
    attempt: Option<Arc<TransferAttempt>>,
    /// Bytes of the inner body that are not passed on yet.
    rest: Bytes,
    /// The size of the next piece of `rest`, and the wait for its turn.
    booked: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<B: Body> Paced<B> {
    fn new(inner: B, failure: fn(B::Error) -> HttpError) -> Self {
        Self {
            inner,
            failure,
            throttle: None,
            moved: None,
            idle_timeout: None,
            idle: None,
            attempt: None,
            rest: Bytes::new(),
            booked: None,
        }
    }

    /// Returns the next piece of `rest` when its turn comes.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        let (piece, wait) = self.booked.get_or_insert_with(|| {
            let (piece, wait) = next_piece(self.throttle.as_deref(), self.rest.len());
            let turn = Instant::now() + wait;
            if let Some(moved) = &self.moved {
                moved.set(turn);
            }
            (piece, Box::pin(tokio::time::sleep_until(turn)))
        });
        ready!(wait.as_mut().poll(context));
        let piece = self.rest.split_to(*piece);
        if let Some(attempt) = &self.attempt {
            attempt.moved(piece.len());
        }
        self.booked = None;
        Poll::Ready(piece)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) else {
                let Some(timeout) = this.idle_timeout else {
                    return Poll::Pending;
                };
                let idle = this
                    .idle
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(idle.as_mut().poll(context));
                return Poll::Ready(Some(Err(Idle::error(timeout))));
            };
            this.idle = None;
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err((this.failure)(error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        this.poll_piece(context)
            .map(|piece| Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        size_hint(&self.inner, self.rest.len())
    }
}
