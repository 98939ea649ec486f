//! Builds the store of one provider from the settings.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, HeaderValue, ObjectStore, RetryConfig};

use super::{azure, google, webdav};
use crate::storage::contact::LONGEST_PAUSE;
use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::http::client::Connector;
use crate::storage::http::exchange::ExchangeConnector;
use crate::storage::http::store_error::StoreError;
use crate::storage::s3::credentials;
use crate::storage::spec::TargetSpec;
use crate::storage::url::Bucket;

/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of retries. It never applies: the budget of time ends the retries.
const MAX_RETRIES: usize = 100_000;
/// Each pause is at most this many times the previous one; with less than 3 they hardly grow.
const PAUSE_GROWTH: f64 = 3.0;
pub(super) const USER_AGENT: &str = concat!("sealift/", env!("CARGO_PKG_VERSION"));

/// The settings from which a store is built.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreSettings<'a> {
    pub spec: &'a TargetSpec,
    pub environment: &'a Environment,
    /// Whether the URL itself, or the S3 endpoint, asks for clear text.
    pub is_clear_text: bool,
}

impl StoreSettings<'_> {
    pub(super) fn failed(&self, error: object_store::Error) -> OpenError {
        OpenError::Client {
            target: self.spec.label(),
            source: Box::new(StoreError::from(error)),
        }
    }

    /// Returns the options of an HTTP client whose requests end after `timeout`.
    pub(super) fn client_options(&self, timeout: Duration) -> ClientOptions {
        let says_http = |url: &str| url.starts_with("http://");
        let clear_text = self.spec.allow_http
            || self.spec.endpoint.as_deref().is_some_and(says_http)
            || self.is_clear_text;
        ClientOptions::new()
            .with_allow_http(clear_text)
            .with_connect_timeout(self.connect_timeout().min(timeout))
            .with_timeout(timeout)
            .with_user_agent(HeaderValue::from_static(USER_AGENT))
    }

    /// Returns the longest time to connect.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.spec.patience.connect_timeout(CONNECT_TIMEOUT)
    }

    fn retry_config(&self) -> RetryConfig {
        let budget = Duration::from_secs(self.spec.retry_seconds());
        RetryConfig {
            backoff: BackoffConfig {
                // A pause must not outlast the budget by much.
                max_backoff: (self.spec.patience)
                    .longest_pause(LONGEST_PAUSE)
                    .min((budget / 10).max(Duration::from_millis(100))),
                base: PAUSE_GROWTH,
                ..BackoffConfig::default()
            },
            max_retries: match budget.is_zero() {
                true => 0,
                false => MAX_RETRIES,
            },
            retry_timeout: budget,
        }
    }

    /// Runs `build` with the environment. If it fails because of one variable, the error names it.
    fn built<T>(
        &self,
        prefixes: &[&str],
        build: impl Fn(&Environment) -> object_store::Result<T>,
    ) -> Result<T, OpenError> {
        let error = match build(self.environment) {
            Ok(built) => return Ok(built),
            Err(error) => error,
        };
        let mut names = self.environment.names(prefixes);
        let Some(name) = names.find(|name| build(&self.environment.without(name)).is_ok()) else {
            return Err(self.failed(error));
        };
        let value = self.environment.get(name).unwrap_or_default();
        let said = StoreError::from(error).to_string().replace(value, "...");
        let said = said.trim_start_matches("Generic Config error: ");
        Err(OpenError::setting(
            &self.spec.label(),
            name,
            format!("has an invalid value: {said}"),
        ))
    }

    pub(super) fn s3(
        &self,
        bucket: &Bucket,
        connector: ExchangeConnector<Connector>,
    ) -> Result<AmazonS3, OpenError> {
        let options = self.client_options(connector.inner.idle_timeout);
        let account = credentials::Account::find(bucket, self.spec, self.environment)?;
        self.built(&credentials::PREFIXES, |environment| {
            account
                .builder(bucket, self.spec, environment)
                .with_client_options(options.clone())
                .with_http_connector(connector.clone())
                .with_retry(self.retry_config())
                .build()
        })
    }

    pub(super) fn google(
        &self,
        bucket: &Bucket,
        connector: ExchangeConnector<Connector>,
    ) -> Result<Arc<dyn ObjectStore>, OpenError> {
        google::check(self.spec, self.environment)?;
        let options = self.client_options(connector.inner.idle_timeout);
        let build = |environment: &Environment| {
            let mut builder = GoogleCloudStorageBuilder::new();
            for (name, value) in environment.lowercased(&google::PREFIXES) {
                if let Ok(key) = name.parse::<GoogleConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            // After the variables, because GOOGLE_BUCKET would replace the URL's bucket otherwise.
            builder = builder.with_bucket_name(&bucket.name);
            if let Some(endpoint) = &self.spec.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            let builder = builder.with_http_connector(connector.clone());
            let builder = builder.with_client_options(options.clone());
            builder.with_retry(self.retry_config()).build()
        };
        Ok(Arc::new(self.built(&google::PREFIXES, build)?))
    }

    pub(super) fn azure(
        &self,
        container: &Bucket,
        connector: ExchangeConnector<Connector>,
    ) -> Result<Arc<dyn ObjectStore>, OpenError> {
        azure::check(self.spec, self.environment)?;
        let options = self.client_options(connector.inner.idle_timeout);
        let build = |environment: &Environment| {
            let mut builder = MicrosoftAzureBuilder::new();
            for (name, value) in environment.lowercased(&azure::PREFIXES) {
                if let Ok(key) = name.parse::<AzureConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            // After the variables, because AZURE_CONTAINER_NAME would replace the URL's container
            // otherwise.
            builder = builder.with_container_name(&container.name);
            if let Some(endpoint) = &self.spec.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            let builder = builder.with_http_connector(connector.clone());
            let builder = builder.with_client_options(options.clone());
            builder.with_retry(self.retry_config()).build()
        };
        Ok(Arc::new(self.built(&azure::PREFIXES, build)?))
    }

    /// Connects to the WebDAV server at `origin` with the login of the URL, if it has one.
    pub(super) fn webdav(
        &self,
        origin: &str,
        login: &Option<(String, String)>,
        connector: ExchangeConnector<Connector>,
    ) -> Result<Arc<dyn ObjectStore>, OpenError> {
        let options = self.client_options(connector.inner.idle_timeout);
        let options = match webdav::login(login, self.environment) {
            Some(login) => options.with_default_headers(webdav::basic_auth(login, self.spec)?),
            None => options,
        };
        // The URL's path is our prefix, because the store reports paths from the server's root.
        let builder = HttpBuilder::new().with_url(origin);
        let builder = builder.with_http_connector(connector);
        let builder = builder
            .with_client_options(options)
            .with_retry(self.retry_config());
        let store = builder.build().map_err(|error| self.failed(error))?;
        Ok(Arc::new(store))
    }
}
