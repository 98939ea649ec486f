//! One HTTP request to a service that the operator named: the admin API of an application, or what
//! a check asks.
//!
//! - A redirect is an answer like any other: it is never followed, so neither the token nor the
//!   request reaches another server.
//! - The request has one deadline for everything, and a shorter one for the connection.
//! - An answer of more than 16 MiB is an error.
//! - A service of this machine is reached without a proxy.
//! - A token is sent by https or to this machine only, unless the caller allows otherwise.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use url::{Host, Url};

use super::http::crypto;
use crate::base::ownership;

/// How long the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MOST_BYTES: usize = 16 << 20;
/// Longest file of a token, in bytes.
const TOKEN_BYTES: u64 = 16 << 10;

/// A request.
#[derive(Debug, Clone)]
pub struct ServiceRequest<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// The whole URL.
    pub url: &'a str,
    /// Sent as JSON. `None`: no body.
    pub body: Option<&'a serde_json::Value>,
    /// The bearer token. `None`: none is sent.
    pub token: Option<&'a str>,
    /// The token may be sent in clear text to another machine.
    pub insecure: bool,
    /// How long everything may take.
    pub timeout: Duration,
}

/// What a request carries that is not JSON, or has headers of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestContent<'a> {
    /// Names and values, in ASCII. They replace the client's own.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// The answer of the service.
#[derive(Debug, Clone)]
pub struct ServiceAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Where a redirect leads. `None`: it is no redirect.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer. The text completes the name of the service and a colon.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The URL, or the method, is not valid.
    #[error("{0:?} is not a request that can be sent")]
    Malformed(String),
    /// The file of the token cannot be used.
    #[error("the token file {path} {what}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// The token would be readable on the way.
    #[error(
        "the token is not sent by http to another machine, where others can read it on the way: use https"
    )]
    ClearText,
    /// There is no connection.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The time was up.
    #[error("no answer after {} s", (.0.as_secs_f64() * 10.0).round() / 10.0)]
    Late(Duration),
    /// The answer is too long.
    #[error("the answer is longer than {} MiB", MOST_BYTES >> 20)]
    TooLong,
    /// The connection broke off, or what came is not HTTP.
    #[error("the connection broke off: {0}")]
    Broken(String),
}

/// Whether nothing that is sent to `url` can be read on the way: it is https, or a service of this
/// machine.
pub fn is_private_way(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "https" || is_loopback(&url))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// Reads the bearer token in the file `path`: one line of visible ASCII.
pub fn read_token(path: &Path) -> Result<String, ServiceError> {
    let wrong = |what: String| ServiceError::Token {
        path: path.display().to_string(),
        what,
    };
    let read = ownership::open_regular(path);
    let read = read.and_then(|file| ownership::read_text(&file, TOKEN_BYTES));
    let text = read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let token = text.trim();
    match !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(wrong("must hold one word of ASCII characters".to_owned())),
    }
}

impl ServiceRequest<'_> {
    /// Sends the request and waits for the answer.
    pub fn send(&self) -> Result<ServiceAnswer, ServiceError> {
        self.send_with(None)
    }

    /// Sends the request with this content and waits for the answer.
    pub fn send_content(&self, content: RequestContent<'_>) -> Result<ServiceAnswer, ServiceError> {
        self.send_with(Some(content))
    }

    fn send_with(
        &self,
        content: Option<RequestContent<'_>>,
    ) -> Result<ServiceAnswer, ServiceError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ServiceError::NoConnection(error.to_string()))?;
        let answer = runtime.block_on(async {
            let answered = tokio::time::timeout(self.timeout, self.exchange(content));
            answered
                .await
                .unwrap_or(Err(ServiceError::Late(self.timeout)))
        });
        // A look-up of a name that hangs must not keep this thread waiting.
        runtime.shutdown_background();
        answer
    }

    async fn exchange(
        &self,
        content: Option<RequestContent<'_>>,
    ) -> Result<ServiceAnswer, ServiceError> {
        let mut request = self.request()?;
        if let Some(content) = content {
            self.fill(&mut request, content)?;
        }
        let client = client(request.url())?;
        let answer = client.execute(request).await;
        let mut answer = answer.map_err(|error| self.failure(error))?;
        let location = answer.headers().get(LOCATION);
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.failure(error))? {
            if body.len() + piece.len() > MOST_BYTES {
                return Err(ServiceError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(ServiceAnswer {
            status: status.as_u16(),
            location: location.filter(|_| status.is_redirection()),
            body,
        })
    }

    fn request(&self) -> Result<reqwest::Request, ServiceError> {
        let malformed = || ServiceError::Malformed(format!("{} {}", self.method, self.url));
        let url = Url::parse(self.url).map_err(|_| malformed())?;
        let method = reqwest::Method::from_bytes(self.method.as_bytes());
        let mut request = reqwest::Request::new(method.map_err(|_| malformed())?, url);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = self.token {
            if !self.insecure && !is_private_way(self.url) {
                return Err(ServiceError::ClearText);
            }
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|_| malformed())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(body) = self.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok(request)
    }

    fn fill(
        &self,
        request: &mut reqwest::Request,
        content: RequestContent<'_>,
    ) -> Result<(), ServiceError> {
        for (name, value) in content.headers {
            let malformed = |_| ServiceError::Malformed(format!("a header {name}"));
            let value = HeaderValue::from_str(value).map_err(malformed)?;
            let malformed = |_| ServiceError::Malformed(format!("a header {name}"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(malformed)?;
            request.headers_mut().insert(name, value);
        }
        *request.body_mut() = Some(content.body.to_vec().into());
        Ok(())
    }

    fn failure(&self, error: reqwest::Error) -> ServiceError {
        match () {
            () if error.is_connect() => ServiceError::NoConnection(last_cause(error)),
            () if error.is_timeout() => ServiceError::Late(self.timeout),
            () => ServiceError::Broken(last_cause(error)),
        }
    }
}

fn client(url: &Url) -> Result<reqwest::Client, ServiceError> {
    crypto::install();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("sealift/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .http1_only()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate();
    let builder = match is_loopback(url) {
        true => builder.no_proxy(),
        false => builder,
    };
    let client = builder.build();
    client.map_err(|error| ServiceError::NoConnection(last_cause(error)))
}

/// Returns the last cause of the error, which is the one in words.
fn last_cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        last = cause.to_string();
        source = cause.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Instant;

    /// Serves one connection: sends `answer`, and keeps the connection open for `hold`. Returns the
    /// port and the request that came.
    fn serve(answer: Vec<u8>, hold: Duration) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.push(byte[0]);
            }
            let _ = stream.write_all(&answer);
            std::thread::sleep(hold);
            String::from_utf8(head).unwrap()
        });
        (port, served)
    }

    fn get(url: &str) -> ServiceRequest<'_> {
        ServiceRequest {
            method: "GET",
            url,
            body: None,
            token: Some("secret"),
            insecure: false,
            timeout: Duration::from_secs(20),
        }
    }

    #[test]
    fn a_redirect_is_an_answer_and_is_not_followed() {
        let answer =
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nno";
        let (port, served) = serve(answer.to_vec(), Duration::ZERO);
        let url = format!("http://127.0.0.1:{port}/health");
        let got = get(&url).send().unwrap();
        assert_eq!(got.status, 302);
        assert_eq!(got.location.as_deref(), Some("http://127.0.0.1:1/"));
        assert_eq!(got.body, b"no");
        let head = served.join().unwrap().to_lowercase();
        assert!(head.contains("authorization: bearer secret"), "{head}");
    }

    #[test]
    fn an_answer_that_does_not_come_or_does_not_end_is_not_waited_for() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        ] {
            let (port, _served) = serve(answer.to_vec(), Duration::from_secs(5));
            let url = format!("http://127.0.0.1:{port}/");
            let started = Instant::now();
            let request = ServiceRequest {
                timeout: Duration::from_millis(300),
                ..get(&url)
            };
            let error = request.send().unwrap_err();
            assert!(matches!(error, ServiceError::Late(_)), "{error}");
            assert!(started.elapsed() < Duration::from_secs(4));
        }
    }

    #[test]
    fn a_long_answer_and_one_that_breaks_off_are_errors() {
        let mut long = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        long.resize(long.len() + MOST_BYTES + 1, b' ');
        let (port, _served) = serve(long, Duration::ZERO);
        let url = format!("http://127.0.0.1:{port}/");
        assert!(matches!(get(&url).send(), Err(ServiceError::TooLong)));
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec();
        let (port, _served) = serve(half, Duration::ZERO);
        let url = format!("http://127.0.0.1:{port}/");
        assert!(matches!(get(&url).send(), Err(ServiceError::Broken(_))));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", closed.local_addr().unwrap());
        drop(closed);
        let error = get(&url).send().unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn a_token_is_not_sent_in_clear_text_to_another_machine() {
        let error = get("http://192.0.2.1:8100/").send().unwrap_err();
        assert!(matches!(error, ServiceError::ClearText), "{error}");
        for (url, is_private) in [
            ("https://dalidou/", true),
            ("http://localhost:8100", true),
            ("http://127.3.2.1", true),
            ("http://[::1]:8100/x", true),
            ("http://localhost.example.org", false),
            ("http://dalidou:8100", false),
            ("http://[::2]/", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_private_way(url), is_private, "{url}");
        }
    }

    #[test]
    fn a_token_is_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (text, expected) in [
            ("abc\n", Some("abc")),
            ("", None),
            ("a b", None),
            ("é", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_token(&path).ok().as_deref(), expected, "{text:?}");
        }
        assert!(read_token(dir.path()).is_err());
    }
}
