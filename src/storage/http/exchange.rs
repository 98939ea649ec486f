//! One exchange with a server, as every request of a target passes through it.
//!
//! A request is counted ([`tries`]), waits if the server asked for a pause ([`RetryAfter`]), and is
//! sent. A failure at a proxy names the proxy ([`Proxies`]), and the answer to a listing is checked
//! ([`listing_guard`]). If the server never answered yet, the command's patience ends the tries
//! ([`Contact`]): `object_store` itself has one schedule for all requests of a run.
//!
//! Some requests of a run go elsewhere, for credentials: to STS, Azure AD, Google's OAuth. Their
//! failures count as the target's, which cannot be reached without them; but their answers say
//! nothing of the target itself.

use std::sync::Arc;
use std::time::Instant;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use url::{Origin, Url};

use super::error_text::in_short;
use super::faults::GivenUp;
use super::listing_guard;
use super::proxy::{self, Proxies};
use super::retry_after::RetryAfter;
use super::tries;
use crate::storage::contact::Contact;

/// Connects as `inner` does, for exchanges of this module's kind.
#[derive(Debug, Clone)]
pub(crate) struct ExchangeConnector<C> {
    pub inner: C,
    pub retry_after: RetryAfter,
    pub proxies: Arc<Proxies>,
    pub(in crate::storage) contact: Arc<HttpContact>,
    /// The server to which the target's own requests go.
    pub server: TargetServer,
}

/// The server to which a target's own requests go.
#[derive(Debug, Clone, Default)]
pub(crate) struct TargetServer(Option<Origin>);

impl TargetServer {
    /// Returns the server at `address`; a text that is no address is no server.
    pub(crate) fn at(address: &str) -> Self {
        Self(Url::parse(address).ok().map(|url| url.origin()))
    }

    /// Whether requests to `url` go to this server.
    fn is_at(&self, url: &str) -> bool {
        let origin = Url::parse(url).ok().map(|url| url.origin());
        self.0.is_some() && self.0 == origin
    }
}

/// The contact to a server, which all clients of one target share.
pub(in crate::storage) type HttpContact = Contact<Arc<HttpError>>;

impl<C: HttpConnector> HttpConnector for ExchangeConnector<C> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.inner.connect(options)?;
        Ok(HttpClient::new(ExchangeService {
            client,
            retry_after: self.retry_after.clone(),
            proxies: Arc::clone(&self.proxies),
            contact: Arc::clone(&self.contact),
            server: self.server.clone(),
        }))
    }
}

#[derive(Debug)]
struct ExchangeService {
    client: HttpClient,
    retry_after: RetryAfter,
    proxies: Arc<Proxies>,
    contact: Arc<HttpContact>,
    server: TargetServer,
}

/// The addresses of a cloud's service within its machines, which has short deadlines of its own.
const METADATA_SERVICES: [&str; 2] = ["http://169.254.", "http://metadata.google.internal/"];

impl ExchangeService {
    /// Sends `request`, and notes what it says of the contact to the server at `url`.
    async fn send(&self, request: HttpRequest, url: &str) -> Result<HttpResponse, HttpError> {
        let is_metadata = |service: &&str| url.starts_with(service);
        if METADATA_SERVICES.iter().any(is_metadata) {
            return self.client.execute(request).await;
        }
        if let Some(failure) = self.contact.given_up() {
            return Err(given_up(failure));
        }
        let is_target = self.server.is_at(url);
        let began = tries::began().unwrap_or_else(Instant::now);
        let sent = self.contact.watch(self.client.execute(request)).await;
        let error = match sent {
            Ok(response) if response.status().is_server_error() => {
                let cause = format!("the server answers {}", response.status().as_u16());
                if is_target {
                    self.contact.reached();
                }
                self.contact.recovers(began, &cause);
                return Ok(response);
            }
            Ok(response) => {
                match is_target {
                    true => self.contact.reached(),
                    false => self.contact.helped(),
                }
                return Ok(response);
            }
            Err(error) => self.proxies.name_in(error, url),
        };
        let left = self.contact.failed(began, &in_short(&error));
        if !self.contact.is_hasty() || left > self.contact.longest_pause() {
            return Err(error);
        }
        let failure = Arc::new(error);
        self.contact.give_up(&failure);
        Err(given_up(failure))
    }
}

/// `object_store` does not retry an error of unknown kind.
fn given_up(failure: Arc<HttpError>) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, GivenUp(failure))
}

#[async_trait::async_trait]
impl HttpService for ExchangeService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        tries::note(&request);
        let wait = self.retry_after.wait(Instant::now());
        // `object_store` does not retry an error of unknown kind.
        let wait = wait.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        tokio::time::sleep(wait).await;
        let is_listing = listing_guard::is_listing(&request);
        let part = listing_guard::requested_part(&request);
        let url = proxy::url_of(&request);
        let response = self.send(request, &url).await?;
        self.retry_after.note(&response);
        match is_listing {
            true => listing_guard::checked(response, part).await,
            false => Ok(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use object_store::client::HttpResponseBody;

    use super::*;
    use crate::base::progress::{Progress, ProgressEvent};
    use crate::storage::patience::Patience;
    use crate::storage::spec::TargetSpec;

    const TARGET: &str = "https://bucket.s3.example.org/object";
    const STS: &str = "https://sts.example.org/?Action=AssumeRoleWithWebIdentity";

    /// Answers every request with this status, or fails.
    #[derive(Debug, Clone, Copy)]
    struct Server(Option<u16>);

    impl HttpConnector for Server {
        fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
            Ok(HttpClient::new(*self))
        }
    }

    #[async_trait::async_trait]
    impl HttpService for Server {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            let status = self.0.ok_or_else(|| {
                let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                HttpError::new(HttpErrorKind::Connect, refused)
            })?;
            let body = HttpResponseBody::from(String::new());
            let answer = ::http::Response::builder().status(status).body(body);
            Ok(answer.unwrap())
        }
    }

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn report(&self, event: &ProgressEvent<'_>) {
            let line = serde_json::to_string(event).unwrap();
            self.0.lock().unwrap().push(line);
        }
    }

    fn contact(patience: Patience) -> Arc<HttpContact> {
        Arc::new(Contact::new(&TargetSpec {
            patience,
            retry_seconds: Some(1),
            ..TargetSpec::from_url("s3://bucket")
        }))
    }

    async fn exchange(contact: &Arc<HttpContact>, status: Option<u16>, url: &'static str) {
        let connector = ExchangeConnector {
            inner: Server(status),
            retry_after: RetryAfter::new(Duration::ZERO),
            proxies: Arc::default(),
            contact: Arc::clone(contact),
            server: TargetServer::at("https://BUCKET.s3.example.org:443"),
        };
        let client = connector.connect(&ClientOptions::new()).unwrap();
        let mut request = HttpRequest::new(String::new().into());
        *request.uri_mut() = ::http::Uri::from_static(url);
        let _ = client.execute(request).await;
    }

    #[tokio::test]
    async fn only_an_answer_of_the_target_itself_is_contact_with_it() {
        for status in [200, 403, 503] {
            let contact = contact(Patience::of_a_schedule());
            exchange(&contact, Some(status), STS).await;
            assert!(!contact.was_reached(), "{status}");
            exchange(&contact, Some(status), TARGET).await;
            assert!(contact.was_reached(), "{status}");
        }
        // Without credentials the target cannot be reached, so this is the cause.
        let contact = contact(Patience::of_a_schedule());
        exchange(&contact, None, STS).await;
        assert!(contact.cause().is_some());
    }

    /// Kind: one request's begin counts for another one, which is then said to have no time left.
    #[tokio::test]
    async fn each_request_has_its_own_time_to_be_retried() {
        let notes = Arc::new(Notes::default());
        let contact = contact(Patience::of_a_schedule().with_progress(notes.clone()));
        exchange(&contact, None, TARGET).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        exchange(&contact, None, TARGET).await;
        let notes = notes.0.lock().unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains(r#""event":"retrying""#), "{notes:?}");
    }
}
