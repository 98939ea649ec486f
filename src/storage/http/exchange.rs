//! One exchange with a server, as every request of a target passes through it.
//!
//! A request is counted ([`tries`]), waits if the server asked for a pause ([`RetryAfter`]), and is
//! sent. A failure at a proxy names the proxy ([`Proxies`]), and the answer to a listing is checked
//! ([`listing_guard`]).

use std::sync::Arc;
use std::time::Instant;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use super::listing_guard;
use super::proxy::{self, Proxies};
use super::retry_after::RetryAfter;
use super::tries;

/// Connects as `inner` does, for exchanges of this module's kind.
#[derive(Debug, Clone)]
pub(crate) struct ExchangeConnector<C> {
    pub inner: C,
    pub retry_after: RetryAfter,
    pub proxies: Arc<Proxies>,
}

impl<C: HttpConnector> HttpConnector for ExchangeConnector<C> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.inner.connect(options)?;
        Ok(HttpClient::new(ExchangeService {
            client,
            retry_after: self.retry_after.clone(),
            proxies: Arc::clone(&self.proxies),
        }))
    }
}

#[derive(Debug)]
struct ExchangeService {
    client: HttpClient,
    retry_after: RetryAfter,
    proxies: Arc<Proxies>,
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
        let response = self.client.execute(request).await;
        let response = response.map_err(|error| self.proxies.name_in(error, &url))?;
        self.retry_after.note(&response);
        match is_listing {
            true => listing_guard::checked(response, part).await,
            false => Ok(response),
        }
    }
}
