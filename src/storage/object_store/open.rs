//! Opens the targets behind `object_store`: clients, deadlines, retries, credentials.
//!
//! Every wait ends. Connecting takes half a minute at most, or less if a person waits, and a
//! request the target's timeout. Whole archives get four times that: an upload of an hour must not
//! be cut at minute five, and TCP notices a dead peer within half a minute anyway. Retries end when
//! their budget is used up. With a limited rate, the timeout applies to each period in which no
//! byte moves.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::client::HttpConnector as _;
use object_store::memory::InMemory;
use tokio::sync::Semaphore;

use super::connect::{StoreSettings, USER_AGENT};
use super::put::BODY_MEBIBYTES;
use super::{ObjectTarget, webdav};
use crate::storage::contact::Contact;
use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::http::client::Connector;
use crate::storage::http::crypto;
use crate::storage::http::exchange::{ExchangeConnector, HttpContact};
use crate::storage::http::proxy::Proxies;
use crate::storage::http::retry_after::RetryAfter;
use crate::storage::http::roots;
use crate::storage::s3::credentials;
use crate::storage::s3::thaw::Thawer;
use crate::storage::setting;
use crate::storage::spec::TargetSpec;
use crate::storage::throttle::Limits;
use crate::storage::url::Address;

const BULK_TIMEOUT_FACTOR: u32 = 4;

/// Opens a target that is neither a folder nor reached through programs.
pub(crate) fn open(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<ObjectTarget, OpenError> {
    crypto::install();
    check_environment(address, spec, environment)?;
    let settings = StoreSettings {
        spec,
        environment,
        is_clear_text: match address {
            Address::WebDav { origin, .. } => origin.starts_with("http://"),
            Address::S3(_) => credentials::is_clear_text(spec, environment),
            _ => false,
        },
    };
    let retry = Duration::from_secs(spec.retry_seconds());
    let Stores {
        quick,
        bulk,
        thawer,
        contact,
    } = stores(address, &settings)?;
    let prefix = match address {
        Address::S3(bucket) | Address::Gcs(bucket) | Address::Azure(bucket) => &bucket.prefix,
        Address::WebDav { prefix, .. } => prefix,
        Address::Memory | Address::Folder(_) | Address::Rsync(_) | Address::Sftp(_) => "",
    };
    Ok(ObjectTarget {
        label: spec.label(),
        store: quick,
        bulk,
        prefix: prefix.to_owned(),
        lists_deep: !matches!(address, Address::WebDav { .. }),
        conditional_puts: AtomicBool::new(true),
        retry,
        bodies: Semaphore::new(BODY_MEBIBYTES as usize),
        data_class: spec.data_class.clone(),
        class: spec.class.clone(),
        may_freeze: matches!(address, Address::S3(_) | Address::Azure(_)),
        thawer,
        contact,
    })
}

/// One store with two deadlines.
struct Stores {
    quick: Arc<dyn ObjectStore>,
    bulk: Arc<dyn ObjectStore>,
    thawer: Option<Thawer>,
    contact: Arc<HttpContact>,
}

/// Builds both stores. Their clients share the limits and the pauses for which the server asks.
fn stores(address: &Address, settings: &StoreSettings<'_>) -> Result<Stores, OpenError> {
    let StoreSettings {
        spec, environment, ..
    } = *settings;
    let proxies = Arc::new(Proxies::of(environment));
    let roots: Arc<[u8]> = match address {
        Address::S3(_) => credentials::roots(spec, environment)?.into(),
        _ => Arc::default(),
    };
    let timeout = Duration::from_secs(spec.timeout_seconds());
    let retry = Duration::from_secs(spec.retry_seconds());
    let limits = Limits::of(spec);
    let retry_after = RetryAfter::new(retry);
    let contact = Arc::new(Contact::new(spec));
    let connector = |idle_timeout| ExchangeConnector {
        inner: Connector {
            limits: limits.clone(),
            user_agent: USER_AGENT,
            connect_timeout: settings.connect_timeout().min(timeout),
            idle_timeout,
            roots: Arc::clone(&roots),
        },
        retry_after: retry_after.clone(),
        proxies: Arc::clone(&proxies),
        contact: Arc::clone(&contact),
    };
    let (quick, bulk) = (connector(timeout), connector(timeout * BULK_TIMEOUT_FACTOR));
    let mut thawer = None;
    let (quick, bulk): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) = match address {
        Address::S3(bucket) => {
            let options = settings.client_options(timeout);
            let store = settings.s3(bucket, quick.clone())?;
            thawer = Some(Thawer {
                store: store.clone(),
                client: quick.connect(&options).map_err(|e| settings.failed(e))?,
                retry,
            });
            (Arc::new(store), Arc::new(settings.s3(bucket, bulk)?))
        }
        Address::Gcs(bucket) => (
            settings.google(bucket, quick)?,
            settings.google(bucket, bulk)?,
        ),
        Address::Azure(container) => (
            settings.azure(container, quick)?,
            settings.azure(container, bulk)?,
        ),
        Address::WebDav { origin, login, .. } => (
            settings.webdav(origin, login, quick)?,
            settings.webdav(origin, login, bulk)?,
        ),
        Address::Memory | Address::Folder(_) | Address::Rsync(_) | Address::Sftp(_) => {
            let memory = Arc::new(InMemory::new());
            (memory.clone(), memory)
        }
    };
    Ok(Stores {
        quick,
        bulk,
        thawer,
        contact,
    })
}

/// Checks the variables that the HTTP client reads by itself (proxies and certificates), and those
/// of a WebDAV login.
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
            webdav::check(spec, environment)?;
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

/// Returns the target's `endpoint`, else `other`, which is checked with the rest of the
/// environment.
fn named_server(spec: &TargetSpec, other: &str) -> Result<String, OpenError> {
    let wrong = |what: String| OpenError::setting(&spec.label(), "endpoint", what);
    match &spec.endpoint {
        Some(endpoint) => setting::server(endpoint).map_err(wrong),
        None => Ok(other.to_owned()),
    }
}
