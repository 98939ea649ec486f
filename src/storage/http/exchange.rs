//! One exchange with a server, as every request of a target passes through it.
//!
//! A request is counted ([`tries`]), waits if the server asked for a pause ([`RetryAfter`]), and is
//! sent. A failure at a proxy names the proxy ([`Proxies`]), and the answer to a listing is checked
//! ([`listing_guard`]). If the server never answered yet, the command's patience ends the tries
//! ([`Contact`]): `object_store` itself has one schedule for all requests of a run.

use std::sync::Arc;
use std::time::Instant;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

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
        }))
    }
}

#[derive(Debug)]
struct ExchangeService {
    client: HttpClient,
    retry_after: RetryAfter,
    proxies: Arc<Proxies>,
    contact: Arc<HttpContact>,
}

/// The address of a cloud's service of credentials. Its answer says nothing of the target.
const METADATA_SERVICE: &str = "http://169.254.";

impl ExchangeService {
    /// Sends `request`, and notes what it says of the contact to the server at `url`.
    async fn send(&self, request: HttpRequest, url: &str) -> Result<HttpResponse, HttpError> {
        if url.starts_with(METADATA_SERVICE) {
            return self.client.execute(request).await;
        }
        if let Some(failure) = self.contact.given_up() {
            return Err(given_up(failure));
        }
        let began = Instant::now();
        let began = self.contact.since().unwrap_or(began);
        let sent = self.contact.watch(self.client.execute(request)).await;
        let error = match sent {
            Ok(response) if response.status().is_server_error() => {
                let cause = format!("the server answers {}", response.status().as_u16());
                // It is there, so it has the usual time to recover.
                self.contact.reached();
                self.contact.failed(began, &cause);
                return Ok(response);
            }
            Ok(response) => {
                self.contact.reached();
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
