//! S3 and what speaks like it: where its credentials, region and endpoint come from.
//!
//! In the order that AWS's own tools have: the environment, then (where the environment names no
//! web identity or container role) the profile of the AWS files, then the instance's role. The last
//! is asked for only where the server is Amazon's, briefly, and its silence is explained.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider, Checksum,
};
use object_store::{ClientOptions, CredentialProvider, RetryConfig};

use super::address::Bucket;
use super::aws_profile::Profile;
use super::store_error::StoreError;
use super::{Environment, OpenError, TargetSpec};

const DEFAULT_REGION: &str = "us-east-1";
/// Variables by which a role's credentials are fetched; `object_store` knows them.
const ROLE_VARIABLES: [&str; 3] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

pub(super) fn builder(
    bucket: &Bucket,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<AmazonS3Builder, OpenError> {
    // A bucket with object lock takes nothing without it, and it is computed for the signature anyway.
    let mut builder = AmazonS3Builder::new().with_checksum_algorithm(Checksum::SHA256);
    for (name, value) in environment.lowercased(&["AWS_"]) {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let profile = Profile::load(&spec.label(), environment)?;
    let endpoint = endpoint(spec, environment, &profile);
    builder = with_credentials(builder, &endpoint, spec, environment, &profile)?;
    if let Some(region) = region(spec, environment, &profile) {
        builder = builder.with_region(region);
    }
    let virtual_hosted = match spec.path_style {
        Some(path_style) => !path_style,
        // A certificate covers one label: buckets with dots go into the path.
        None => endpoint.is_none() && !bucket.name.contains('.'),
    };
    if let Some(endpoint) = &endpoint {
        let server = match virtual_hosted {
            true => with_bucket_in_host(endpoint, &bucket.name),
            false => endpoint.clone(),
        };
        // The S3 variable would win over this otherwise.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, server);
    }
    Ok(builder
        .with_bucket_name(&bucket.name)
        .with_virtual_hosted_style_request(virtual_hosted)
        // Deletes are single here, and the bulk request is what S3's imitators lack first.
        .with_disable_bulk_delete(true))
}

/// Whether the server is spoken to in clear text because its URL says so.
pub(super) fn is_clear_text(spec: &TargetSpec, environment: &Environment) -> bool {
    let profile = Profile::load("", environment).unwrap_or_default();
    endpoint(spec, environment, &profile).is_some_and(|url| url.starts_with("http://"))
}

fn endpoint(spec: &TargetSpec, environment: &Environment, profile: &Profile) -> Option<String> {
    let from_environment = || {
        environment
            .get("AWS_ENDPOINT_URL_S3")
            .or_else(|| environment.get("AWS_ENDPOINT_URL"))
            .or_else(|| environment.get("AWS_ENDPOINT"))
            .map(str::to_owned)
    };
    spec.endpoint
        .clone()
        .or_else(from_environment)
        .or_else(|| profile.endpoint.clone())
        .map(|url| url.trim_end_matches('/').to_owned())
}

fn region(spec: &TargetSpec, environment: &Environment, profile: &Profile) -> Option<String> {
    let from_environment = || {
        environment
            .get("AWS_REGION")
            .or_else(|| environment.get("AWS_DEFAULT_REGION"))
            .map(str::to_owned)
    };
    spec.region
        .clone()
        .or_else(from_environment)
        .or_else(|| profile.region.clone())
        .or_else(|| Some(DEFAULT_REGION.to_owned()))
}

fn with_bucket_in_host(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((_, host)) if host.starts_with(&format!("{bucket}.")) => endpoint.to_owned(),
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => format!("{bucket}.{endpoint}"),
    }
}

fn with_credentials(
    builder: AmazonS3Builder,
    endpoint: &Option<String>,
    spec: &TargetSpec,
    environment: &Environment,
    profile: &Profile,
) -> Result<AmazonS3Builder, OpenError> {
    let missing = |reason: String| OpenError::Credentials {
        target: spec.label(),
        reason,
    };
    match (
        environment.get("AWS_ACCESS_KEY_ID"),
        environment.get("AWS_SECRET_ACCESS_KEY"),
    ) {
        (Some(_), Some(_)) => return Ok(builder),
        (None, None) => {}
        _ => {
            return Err(missing(
                "of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set".to_owned(),
            ));
        }
    }
    let anonymous = environment
        .get("AWS_SKIP_SIGNATURE")
        .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
    if anonymous || environment.has_any(&ROLE_VARIABLES) {
        return Ok(builder);
    }
    if let Some(keys) = &profile.keys {
        let builder = builder
            .with_access_key_id(&keys.id)
            .with_secret_access_key(&keys.secret);
        return Ok(match &keys.token {
            Some(token) => builder.with_token(token),
            None => builder,
        });
    }
    if let Some(setting) = profile.unsupported {
        return Err(missing(format!(
            "the AWS profile uses {setting}, which sealift does not do; export the keys that `aws configure export-credentials --format env` prints"
        )));
    }
    let amazon = |url: &String| url.contains(".amazonaws.com");
    let disabled = environment
        .get("AWS_EC2_METADATA_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if disabled || endpoint.as_ref().is_some_and(|url| !amazon(url)) {
        return Err(missing(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials"
                .to_owned(),
        ));
    }
    let provider = instance_role().map_err(|source| OpenError::Client {
        target: spec.label(),
        source: Box::new(StoreError(source)),
    })?;
    Ok(builder.with_credentials(Arc::new(provider)))
}

/// The role of an EC2 instance, asked for with little patience: on any other machine nobody answers.
#[derive(Debug)]
struct InstanceRole(AwsCredentialProvider);

#[derive(Debug, thiserror::Error)]
#[error(
    "no AWS credentials in the environment or ~/.aws, and this machine has no instance role ({0})"
)]
struct NoInstanceRole(StoreError);

fn instance_role() -> object_store::Result<InstanceRole> {
    let retry = RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(5),
        ..RetryConfig::default()
    };
    let options = ClientOptions::new().with_timeout(Duration::from_secs(5));
    let store: AmazonS3 = AmazonS3Builder::new()
        .with_bucket_name("unused")
        .with_client_options(options)
        .with_retry(retry)
        .build()?;
    Ok(InstanceRole(store.credentials().clone()))
}

#[async_trait::async_trait]
impl CredentialProvider for InstanceRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let unauthenticated = |error| object_store::Error::Unauthenticated {
            path: "the instance's role".to_owned(),
            source: Box::new(NoInstanceRole(StoreError(error))),
        };
        self.0.get_credential().await.map_err(unauthenticated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(spec: &TargetSpec, pairs: &[(&str, &str)], key: AmazonS3ConfigKey) -> Option<String> {
        let bucket = Bucket {
            name: "bucket".to_owned(),
            prefix: String::new(),
        };
        let environment = Environment::from_pairs(pairs.iter().copied());
        let built = builder(&bucket, spec, &environment).unwrap();
        built.get_config_value(&key)
    }

    const KEYS: [(&str, &str); 3] = [
        ("AWS_ACCESS_KEY_ID", "AK"),
        ("AWS_SECRET_ACCESS_KEY", "SK"),
        ("AWS_SESSION_TOKEN", "TOKEN"),
    ];

    #[test]
    fn the_environment_gives_keys_and_token() {
        let spec = TargetSpec::from_url("s3://bucket");
        let get = |key| config(&spec, &KEYS, key);
        assert_eq!(get(AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("AK"));
        assert_eq!(get(AmazonS3ConfigKey::Token).as_deref(), Some("TOKEN"));
        assert_eq!(get(AmazonS3ConfigKey::Region).as_deref(), Some("us-east-1"));
        let virtual_hosted = get(AmazonS3ConfigKey::VirtualHostedStyleRequest);
        assert_eq!(virtual_hosted.as_deref(), Some("true"));
    }

    #[test]
    fn an_endpoint_means_path_style_unless_said_otherwise() {
        let mut spec = TargetSpec::from_url("s3://bucket");
        spec.endpoint = Some("https://s3.example.org/".to_owned());
        let get = |spec: &TargetSpec, key| config(spec, &KEYS, key);
        let style = AmazonS3ConfigKey::VirtualHostedStyleRequest;
        let server = AmazonS3ConfigKey::S3Endpoint;
        assert_eq!(get(&spec, style).as_deref(), Some("false"));
        assert_eq!(
            get(&spec, server).as_deref(),
            Some("https://s3.example.org")
        );
        spec.path_style = Some(false);
        let expected = Some("https://bucket.s3.example.org");
        assert_eq!(get(&spec, server).as_deref(), expected);
    }

    #[test]
    fn no_credentials_for_a_foreign_server_is_told_at_once() {
        let mut spec = TargetSpec::from_url("s3://bucket");
        spec.endpoint = Some("https://s3.example.org".to_owned());
        let bucket = Bucket {
            name: "bucket".to_owned(),
            prefix: String::new(),
        };
        let error = builder(&bucket, &spec, &Environment::default())
            .err()
            .unwrap();
        assert!(error.to_string().contains("~/.aws/credentials"), "{error}");
    }
}
