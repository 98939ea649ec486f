//! The role of an EC2 instance as the source of credentials.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::client::ReqwestConnector;
use object_store::{ClientOptions, CredentialProvider, RetryConfig};

use crate::storage::contact::Contact;
use crate::storage::http::exchange::{ExchangeConnector, TargetServer};
use crate::storage::http::proxy::Proxies;
use crate::storage::http::retry_after::RetryAfter;
use crate::storage::http::store_error::{StoreError, attempt};
use crate::storage::spec::TargetSpec;

/// On a machine that is no instance nothing answers, so the deadline is short.
const DEADLINE: Duration = Duration::from_secs(5);

/// The role of this instance.
#[derive(Debug)]
pub(super) struct InstanceRole(AwsCredentialProvider);

#[derive(Debug, thiserror::Error)]
#[error(
    "no AWS credentials in the environment or ~/.aws, and this machine has no instance role ({0})"
)]
struct NoInstanceRole(StoreError);

impl InstanceRole {
    pub(super) fn new() -> object_store::Result<Self> {
        let retry = RetryConfig {
            max_retries: 2,
            retry_timeout: DEADLINE,
            ..RetryConfig::default()
        };
        let connector = ExchangeConnector {
            inner: ReqwestConnector::default(),
            retry_after: RetryAfter::new(DEADLINE),
            proxies: Arc::new(Proxies::default()),
            contact: Arc::new(Contact::new(&TargetSpec::default())),
            server: TargetServer::default(),
        };
        let store: AmazonS3 = AmazonS3Builder::new()
            .with_bucket_name("unused")
            .with_client_options(ClientOptions::new().with_timeout(DEADLINE))
            .with_http_connector(connector)
            .with_retry(retry)
            .build()?;
        Ok(Self(store.credentials().clone()))
    }
}

#[async_trait::async_trait]
impl CredentialProvider for InstanceRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let unauthenticated = |error| object_store::Error::Unauthenticated {
            path: "the instance's role".to_owned(),
            source: Box::new(NoInstanceRole(error)),
        };
        attempt(self.0.get_credential())
            .await
            .map_err(unauthenticated)
    }
}
