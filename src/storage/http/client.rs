//! The HTTP client of `object_store`, and the same at a limited rate.
//!
//! `object_store` hands a request's body over whole, as `reqwest` then does to the socket, so a limit cannot
//! be laid around its client: this one builds the `reqwest` request itself, with a body that comes in pieces
//! as the throttle lets them through. The body's length is known and said, so nothing is sent chunked, and
//! the signature, which was made before, covers the same bytes.
//!
//! A deadline for the whole request would end every transfer that is slow on purpose. Here it holds for each
//! time that nothing moves, not counting the wait for one's turn.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService, ReqwestConnector,
};
use object_store::{Certificate, ClientOptions};
use tokio::time::{Instant, Sleep};

use crate::storage::throttle::{Limits, Throttle, next_piece};

#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(in crate::storage) limits: Limits,
    pub user_agent: &'static str,
    pub connect_timeout: Duration,
    /// Without a byte moving.
    pub idle_timeout: Duration,
    /// Certificates of further authorities, in PEM form.
    pub roots: Arc<[u8]>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        if self.limits.are_none() {
            let roots = Certificate::from_pem_bundle(&self.roots)?;
            let options = options.clone();
            let options = roots
                .into_iter()
                .fold(options, ClientOptions::with_root_certificate);
            return ReqwestConnector::default().connect(&options);
        }
        let allows_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        let headers = options.get_default_headers().cloned().unwrap_or_default();
        let failed = |error: reqwest::Error| object_store::Error::Generic {
            store: "HTTP client",
            source: Box::new(error),
        };
        let roots = reqwest::Certificate::from_pem_bundle(&self.roots).map_err(failed)?;
        let client = reqwest::Client::builder()
            .tls_certs_merge(roots)
            .user_agent(self.user_agent)
            .default_headers(headers)
            .connect_timeout(self.connect_timeout)
            .https_only(allows_http.as_deref() != Some("true"))
            .http1_only()
            // What is unpacked on the way has another length than the object.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build();
        let client = client.map_err(failed)?;
        Ok(HttpClient::new(Limited {
            client,
            limits: self.limits.clone(),
            idle_timeout: self.idle_timeout,
        }))
    }
}

#[derive(Debug)]
struct Limited {
    client: reqwest::Client,
    limits: Limits,
    idle_timeout: Duration,
}

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
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let moved = Moved::now();
        *request.body_mut() = Some(match body.content_length() {
            0 => reqwest::Body::from(Bytes::new()),
            _ => reqwest::Body::wrap(Paced {
                throttle: self.limits.upload.clone(),
                moved: Some(moved.clone()),
                ..Paced::new(body, std::convert::identity)
            }),
        });
        let mut answer = self.answer(request, &moved).await?;
        let mut response = HttpResponse::new(HttpResponseBody::from(Bytes::new()));
        *response.status_mut() = answer.status();
        std::mem::swap(response.headers_mut(), answer.headers_mut());
        *response.body_mut() = HttpResponseBody::new(Paced {
            throttle: self.limits.download.clone(),
            idle_timeout: Some(self.idle_timeout),
            ..Paced::new(reqwest::Body::from(answer), failure)
        });
        Ok(response)
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

/// As `object_store` tells its own client's errors apart. Every object is named by its content, so a request
/// that broke off may be sent again.
fn failure(error: reqwest::Error) -> HttpError {
    let kind = match () {
        () if error.is_timeout() => HttpErrorKind::Timeout,
        () if error.is_connect() => HttpErrorKind::Connect,
        () if error.is_decode() => HttpErrorKind::Decode,
        () if error.is_request() => HttpErrorKind::Request,
        () => HttpErrorKind::Interrupted,
    };
    // A signed URL is as good as a password.
    HttpError::new(kind, error.without_url())
}

/// When a request's body last moved, or will, where it waits for its turn.
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

/// A body that comes in pieces, each when the throttle lets it through.
struct Paced<B: Body> {
    inner: B,
    failure: fn(B::Error) -> HttpError,
    throttle: Option<Arc<Throttle>>,
    /// Tells whoever waits for the answer.
    moved: Option<Moved>,
    /// For how long the inner body may give nothing.
    idle_timeout: Option<Duration>,
    idle: Option<Pin<Box<Sleep>>>,
    /// What the inner body gave and is still to go.
    rest: Bytes,
    /// A piece of `rest` that has booked its way.
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
            rest: Bytes::new(),
            booked: None,
        }
    }

    /// The next piece of `rest`.
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
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}
