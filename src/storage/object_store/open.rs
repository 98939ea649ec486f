//! Opening the stores behind `object_store`: clients, deadlines, retries, credentials.
//!
//! Every wait ends. Connecting takes [`CONNECT_TIMEOUT`] at most, a request the target's timeout
//! (whole archives four times that: an hour's upload must not be cut at minute five, and a dead peer
//! is noticed by TCP in half a minute anyway), and retries stop when their budget is used up. Where the
//! rate is limited, the timeout is for each time that nothing moves.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use base64::Engine as _;
use object_store::aws::AmazonS3;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector as _;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use object_store::{
    BackoffConfig, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig,
};

use super::ObjectTarget;
use crate::storage::Environment;
use crate::storage::OpenError;
use crate::storage::TargetSpec;
use crate::storage::google;
use crate::storage::http::classify::StoreError;
use crate::storage::http::client::Connector;
use crate::storage::http::proxy::Proxies;
use crate::storage::http::retry_after::{Considerately, Patience};
use crate::storage::http::roots;
use crate::storage::s3::credentials;
use crate::storage::s3::thaw::Thawer;
use crate::storage::setting::{self, Takes};
use crate::storage::throttle::Limits;
use crate::storage::url::{Address, Bucket};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const BULK_TIMEOUT_FACTOR: u32 = 4;
/// The budget of time ends retries, not their number.
const MAX_RETRIES: usize = 100_000;
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Each pause is anything up to this many times the one before: with less than 3 they hardly grow.
const PAUSE_GROWTH: f64 = 3.0;
const USER_AGENT: &str = concat!("sealift/", env!("CARGO_PKG_VERSION"));

/// Opens whatever is not a folder.
pub(crate) fn open(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<ObjectTarget, OpenError> {
    install_crypto();
    check_environment(address, spec, environment)?;
    let proxies = Arc::new(Proxies::of(environment));
    let roots: Arc<[u8]> = match address {
        Address::S3(_) => credentials::roots(spec, environment)?.into(),
        _ => Arc::default(),
    };
    let timeout = Duration::from_secs(spec.timeout_seconds());
    let limits = Limits::of(spec);
    let patience = Patience::new(Duration::from_secs(spec.retry_seconds()));
    let connector = |idle_timeout| Considerately {
        inner: Connector {
            limits: limits.clone(),
            user_agent: USER_AGENT,
            connect_timeout: CONNECT_TIMEOUT.min(timeout),
            idle_timeout,
            roots: Arc::clone(&roots),
        },
        patience: patience.clone(),
        proxies: Arc::clone(&proxies),
    };
    let (quick, patient) = (connector(timeout), connector(timeout * BULK_TIMEOUT_FACTOR));
    let mut thawer = None;
    let (store, bulk): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) = match address {
        Address::Memory => {
            let memory = Arc::new(InMemory::new());
            (memory.clone(), memory)
        }
        Address::S3(bucket) => {
            let options = client_options(address, spec, environment, timeout);
            let store = connect_s3(bucket, address, spec, environment, quick.clone())?;
            thawer = Some(Thawer {
                store: store.clone(),
                client: quick.connect(&options).map_err(|e| failed(spec, e))?,
                retry: Duration::from_secs(spec.retry_seconds()),
            });
            let bulk = connect_s3(bucket, address, spec, environment, patient)?;
            (Arc::new(store), Arc::new(bulk))
        }
        remote => (
            connect(remote, spec, environment, quick)?,
            connect(remote, spec, environment, patient)?,
        ),
    };
    let prefix = match address {
        Address::S3(bucket) | Address::Gcs(bucket) | Address::Azure(bucket) => &bucket.prefix,
        Address::WebDav { prefix, .. } => prefix,
        Address::Memory | Address::Folder(_) | Address::Rsync(_) | Address::Sftp(_) => "",
    };
    Ok(ObjectTarget {
        label: spec.label(),
        store,
        bulk,
        prefix: prefix.to_owned(),
        lists_deep: !matches!(address, Address::WebDav { .. }),
        conditional_puts: AtomicBool::new(true),
        retry: Duration::from_secs(spec.retry_seconds()),
        bodies: tokio::sync::Semaphore::new(super::BODY_MEBIBYTES as usize),
        data_class: spec.data_class.clone(),
        class: spec.class.clone(),
        may_freeze: matches!(address, Address::S3(_) | Address::Azure(_)),
        thawer,
    })
}

/// What the HTTP client reads by itself: proxies and certificates; and the variables of a WebDAV login.
fn check_environment(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<(), OpenError> {
    let target = spec.label();
    let server = match address {
        Address::S3(bucket) => credentials::server(bucket, spec, environment)?,
        Address::Gcs(_) => {
            let named = environment.get("GOOGLE_BASE_URL");
            named_server(spec, named.unwrap_or("https://storage.googleapis.com"))?
        }
        Address::Azure(_) => {
            let named = environment.get("AZURE_STORAGE_ENDPOINT");
            let named = named.or_else(|| environment.get("AZURE_ENDPOINT"));
            named_server(spec, named.unwrap_or("https://blob.core.windows.net"))?
        }
        Address::WebDav { origin, .. } => {
            environment.check(&target, |name| match name {
                "SEALIFT_WEBDAV_USER" | "SEALIFT_WEBDAV_PASSWORD" => Some(Takes::Text),
                _ => None,
            })?;
            origin.clone()
        }
        Address::Memory | Address::Folder(_) | Address::Rsync(_) | Address::Sftp(_) => {
            return Ok(());
        }
    };
    let proxies = Proxies::of(environment);
    proxies
        .check(&format!("{server}/"))
        .map_err(|(name, what)| OpenError::setting(&target, name, what))?;
    match server.starts_with("https:") {
        true => roots::check(&target, environment),
        false => Ok(()),
    }
}

/// The target's `endpoint`, else `other`, which is checked with the rest of the environment.
fn named_server(spec: &TargetSpec, other: &str) -> Result<String, OpenError> {
    let wrong = |what: String| OpenError::setting(&spec.label(), "endpoint", what);
    match &spec.endpoint {
        Some(endpoint) => setting::server(endpoint).map_err(wrong),
        None => Ok(other.to_owned()),
    }
}

/// What `build` makes of the environment. Where that fails for the sake of one variable, the error names it.
fn built<T>(
    spec: &TargetSpec,
    environment: &Environment,
    prefixes: &[&str],
    build: impl Fn(&Environment) -> object_store::Result<T>,
) -> Result<T, OpenError> {
    let error = match build(environment) {
        Ok(built) => return Ok(built),
        Err(error) => error,
    };
    let mut names = environment.names(prefixes);
    let Some(name) = names.find(|name| build(&environment.without(name)).is_ok()) else {
        return Err(failed(spec, error));
    };
    let value = environment.get(name).unwrap_or_default();
    let said = StoreError(error).to_string().replace(value, "…");
    let said = said.trim_start_matches("Generic Config error: ");
    Err(OpenError::setting(
        &spec.label(),
        name,
        format!("is not what it should be: {said}"),
    ))
}

/// TLS needs a process-wide choice of ciphers; whoever chose before us chose well.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn failed(spec: &TargetSpec, error: object_store::Error) -> OpenError {
    OpenError::Client {
        target: spec.label(),
        source: Box::new(StoreError(error)),
    }
}

fn connect_s3(
    bucket: &Bucket,
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
    connector: Considerately<Connector>,
) -> Result<AmazonS3, OpenError> {
    let options = client_options(address, spec, environment, connector.inner.idle_timeout);
    let account = credentials::Account::find(bucket, spec, environment)?;
    built(spec, environment, &credentials::PREFIXES, |environment| {
        account
            .builder(bucket, spec, environment)
            .with_client_options(options.clone())
            .with_http_connector(connector.clone())
            .with_retry(retry_config(spec))
            .build()
    })
}

/// Any but S3.
fn connect(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
    connector: Considerately<Connector>,
) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let failed = |error| failed(spec, error);
    let options = client_options(address, spec, environment, connector.inner.idle_timeout);
    let retry = retry_config(spec);
    match address {
        Address::Gcs(bucket) => {
            google::check(spec, environment)?;
            let build = |environment: &Environment| {
                let mut builder = GoogleCloudStorageBuilder::new();
                for (name, value) in environment.lowercased(&google::PREFIXES) {
                    if let Ok(key) = name.parse::<GoogleConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                // After the variables: GOOGLE_BUCKET would win over the URL otherwise.
                builder = builder.with_bucket_name(&bucket.name);
                if let Some(endpoint) = &spec.endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                let builder = builder.with_http_connector(connector.clone());
                let builder = builder.with_client_options(options.clone());
                builder.with_retry(retry.clone()).build()
            };
            Ok(Arc::new(built(
                spec,
                environment,
                &google::PREFIXES,
                build,
            )?))
        }
        Address::Azure(bucket) => {
            environment.check(&spec.label(), |name| azure_takes(name, spec))?;
            let build = |environment: &Environment| {
                let mut builder = MicrosoftAzureBuilder::new();
                for (name, value) in environment.lowercased(&AZURE) {
                    if let Ok(key) = name.parse::<AzureConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                // After the variables: AZURE_CONTAINER_NAME would win over the URL otherwise.
                builder = builder.with_container_name(&bucket.name);
                if let Some(endpoint) = &spec.endpoint {
                    builder = builder.with_endpoint(endpoint.clone());
                }
                let builder = builder.with_http_connector(connector.clone());
                let builder = builder.with_client_options(options.clone());
                builder.with_retry(retry.clone()).build()
            };
            Ok(Arc::new(built(spec, environment, &AZURE, build)?))
        }
        Address::WebDav { origin, login, .. } => {
            let options = match webdav_login(login, environment) {
                Some(login) => options.with_default_headers(basic_auth(login, spec)?),
                None => options,
            };
            // The URL's path is our prefix: the store reports paths from the server's root.
            let builder = HttpBuilder::new().with_url(origin);
            let builder = builder.with_http_connector(connector);
            let builder = builder.with_client_options(options).with_retry(retry);
            let store = builder.build().map_err(failed)?;
            Ok(Arc::new(store))
        }
        Address::Memory
        | Address::Folder(_)
        | Address::Rsync(_)
        | Address::Sftp(_)
        | Address::S3(_) => Ok(Arc::new(InMemory::new())),
    }
}

const AZURE: [&str; 3] = ["AZURE_", "MSI_", "IDENTITY_"];

/// What a variable takes that an Azure target reads.
fn azure_takes(name: &str, spec: &TargetSpec) -> Option<Takes> {
    use AzureConfigKey as Key;
    match name {
        "IDENTITY_HEADER" => return Some(Takes::Word),
        "AZURITE_BLOB_STORAGE_URL" => return Some(Takes::Server),
        _ if !AZURE.iter().any(|prefix| name.starts_with(prefix)) => return None,
        _ => {}
    }
    match name.to_ascii_lowercase().parse().ok()? {
        Key::ContainerName | Key::Client(_) => None,
        Key::Endpoint => spec.endpoint.is_none().then_some(Takes::Server),
        Key::AccountName | Key::AuthorityId => Some(Takes::Label),
        Key::AuthorityHost => Some(Takes::Server),
        Key::MsiEndpoint | Key::FabricTokenServiceUrl => Some(Takes::Address),
        Key::Token
        | Key::FabricWorkloadHost
        | Key::AccessKey
        | Key::FabricSessionToken
        | Key::FabricClusterIdentifier
        | Key::EncryptionKey => Some(Takes::Word),
        _ => Some(Takes::Text),
    }
}

fn client_options(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
    timeout: Duration,
) -> ClientOptions {
    let says_http = |url: &str| url.starts_with("http://");
    let clear_text = spec.allow_http
        || spec.endpoint.as_deref().is_some_and(says_http)
        || match address {
            Address::WebDav { origin, .. } => says_http(origin),
            Address::S3(_) => credentials::is_clear_text(spec, environment),
            _ => false,
        };
    ClientOptions::new()
        .with_allow_http(clear_text)
        .with_connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .with_timeout(timeout)
        .with_user_agent(HeaderValue::from_static(USER_AGENT))
}

fn retry_config(spec: &TargetSpec) -> RetryConfig {
    let budget = Duration::from_secs(spec.retry_seconds());
    RetryConfig {
        backoff: BackoffConfig {
            // A pause must not outlast the budget by much.
            max_backoff: LONGEST_PAUSE.min((budget / 10).max(Duration::from_millis(100))),
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

/// From the URL, or better from the environment.
fn webdav_login(
    from_url: &Option<(String, String)>,
    environment: &Environment,
) -> Option<(String, String)> {
    let user = environment.get("SEALIFT_WEBDAV_USER");
    let password = environment.get("SEALIFT_WEBDAV_PASSWORD");
    match (from_url, user, password) {
        (Some((user, secret)), _, Some(password)) if secret.is_empty() => {
            Some((user.clone(), password.to_owned()))
        }
        (Some(login), _, _) => Some(login.clone()),
        (None, Some(user), password) => {
            Some((user.to_owned(), password.unwrap_or_default().to_owned()))
        }
        (None, None, _) => None,
    }
}

fn basic_auth(
    (user, password): (String, String),
    spec: &TargetSpec,
) -> Result<HeaderMap, OpenError> {
    let login = format!("{user}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(login);
    let mut value =
        HeaderValue::from_str(&format!("Basic {encoded}")).map_err(|source| OpenError::Client {
            target: spec.label(),
            source: Box::new(source),
        })?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    Ok(headers)
}
