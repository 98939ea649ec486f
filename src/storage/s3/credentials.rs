//! Finds the credentials, the region and the endpoint of an S3 target (Amazon's or a compatible
//! one).
//!
//! The order is that of AWS's own tools: the environment, then the profile of the AWS files (unless
//! the environment names a web identity or a container role), then the instance's role. The role is
//! requested only if the server is Amazon's, with a short deadline, and a missing answer is
//! explained.

use std::path::Path;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};

use super::instance_role::InstanceRole;
use super::profile::{Keys, Profile};
use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::http::roots;
use crate::storage::http::store_error::StoreError;
use crate::storage::setting::{self, Takes};
use crate::storage::spec::TargetSpec;
use crate::storage::url::Bucket;

const DEFAULT_REGION: &str = "us-east-1";
/// Variables that make `object_store` fetch the credentials of a role.
const ROLE_VARIABLES: [&str; 3] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Variables that name a file with a token.
const TOKEN_FILES: [&str; 2] = [
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];
/// Prefixes of the variables that an S3 target reads.
pub(crate) const PREFIXES: [&str; 1] = ["AWS_"];

/// Server and credentials of a bucket. All values are checked.
pub(crate) struct Account {
    /// The server's address. `None`: Amazon's own.
    endpoint: Option<String>,
    region: String,
    credentials: Credentials,
}

enum Credentials {
    /// `object_store` finds them in the environment: keys, a role, or none.
    OfEnvironment,
    Keys(Keys),
    Role(Arc<InstanceRole>),
}

impl Account {
    pub(in crate::storage) fn find(
        bucket: &Bucket,
        spec: &TargetSpec,
        environment: &Environment,
    ) -> Result<Self, OpenError> {
        let target = spec.label();
        environment.check(&target, |name| takes(name, spec))?;
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        // Keys take precedence over tokens, whose files are not read then.
        let has_keys = keys.iter().all(|name| environment.get(name).is_some());
        for name in TOKEN_FILES {
            if let Some(file) = environment.get(name).filter(|_| !has_keys) {
                setting::check_token_file(&target, name, file)?;
            }
        }
        let profile = Profile::load(&target, environment)?;
        let endpoint = endpoint(spec, environment, &profile)?;
        let found = Self {
            credentials: credentials(&endpoint, spec, environment, &profile)?,
            region: region(spec, environment, &profile)?,
            endpoint,
        };
        let server = found.server(bucket, spec);
        match setting::server(&server) {
            Ok(_) => Ok(found),
            Err(what) => Err(OpenError::setting(&target, "its server's address", what)),
        }
    }

    fn is_virtual_hosted(&self, bucket: &Bucket, spec: &TargetSpec) -> bool {
        match spec.path_style {
            Some(path_style) => !path_style,
            // A wildcard certificate covers one label, so a bucket with a dot goes into the path.
            None => self.endpoint.is_none() && !bucket.name.contains(['.', ':']),
        }
    }

    /// Returns the address to which requests go.
    fn server(&self, bucket: &Bucket, spec: &TargetSpec) -> String {
        let region = &self.region;
        let is_virtual_hosted = self.is_virtual_hosted(bucket, spec);
        let amazon = || format!("https://s3.{region}.amazonaws.com");
        let server = self.endpoint.clone().unwrap_or_else(amazon);
        match is_virtual_hosted {
            true => with_bucket_in_host(&server, &bucket.name),
            false => server,
        }
    }

    pub(in crate::storage) fn builder(
        &self,
        bucket: &Bucket,
        spec: &TargetSpec,
        environment: &Environment,
    ) -> AmazonS3Builder {
        // A bucket with object lock requires the checksum, and the signature needs it anyway.
        let mut builder = AmazonS3Builder::new().with_checksum_algorithm(Checksum::SHA256);
        for (name, value) in environment.lowercased(&PREFIXES) {
            if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        builder = match &self.credentials {
            Credentials::OfEnvironment => builder,
            Credentials::Role(role) => builder.with_credentials(Arc::clone(role) as _),
            Credentials::Keys(keys) => {
                let builder = builder
                    .with_access_key_id(&keys.id)
                    .with_secret_access_key(&keys.secret);
                match &keys.token {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
        };
        if self.endpoint.is_some() {
            // Otherwise the S3 variable would take precedence.
            let server = self.server(bucket, spec);
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, server);
        }
        builder
            .with_region(&self.region)
            .with_bucket_name(&bucket.name)
            .with_virtual_hosted_style_request(self.is_virtual_hosted(bucket, spec))
            // We delete single objects, and compatible servers often lack the bulk request.
            .with_disable_bulk_delete(true)
    }
}

/// Returns the form that a variable must have. `None`: an S3 target does not read it.
fn takes(name: &str, spec: &TargetSpec) -> Option<Takes> {
    use AmazonS3ConfigKey as Key;
    if !name.starts_with("AWS_") {
        return None;
    }
    match name.to_ascii_lowercase().parse().ok()? {
        // The URL names the bucket; the client's own settings are not used.
        Key::Bucket | Key::Client(_) => None,
        Key::AccessKeyId | Key::Token => Some(Takes::Word),
        Key::Region | Key::DefaultRegion => spec.region.is_none().then_some(Takes::Label),
        Key::Endpoint | Key::S3Endpoint => spec.endpoint.is_none().then_some(Takes::Server),
        Key::StsEndpoint | Key::MetadataEndpoint => Some(Takes::Server),
        Key::ContainerCredentialsFullUri => Some(Takes::Address),
        Key::ContainerCredentialsRelativeUri => Some(Takes::Path),
        _ => Some(Takes::Text),
    }
}

/// Returns the address to which requests to a bucket go.
pub(in crate::storage) fn server(
    bucket: &Bucket,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<String, OpenError> {
    Ok(Account::find(bucket, spec, environment)?.server(bucket, spec))
}

/// Returns the server that the operator chose: in the settings, the environment or the profile.
/// `None`: Amazon's own.
pub(in crate::storage) fn chosen_endpoint(
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<Option<String>, OpenError> {
    let profile = Profile::load(&spec.label(), environment)?;
    endpoint(spec, environment, &profile)
}

/// Whether the endpoint's URL asks for clear text.
pub(crate) fn is_clear_text(spec: &TargetSpec, environment: &Environment) -> bool {
    let endpoint = chosen_endpoint(spec, environment).unwrap_or_default();
    endpoint.is_some_and(|url| url.starts_with("http://"))
}

/// Reads the certificates of authorities that only S3 targets accept, in PEM form.
pub(crate) fn roots(spec: &TargetSpec, environment: &Environment) -> Result<Vec<u8>, OpenError> {
    let target = spec.label();
    if let Some(file) = environment.get("AWS_CA_BUNDLE") {
        return roots::read(&target, "AWS_CA_BUNDLE", Path::new(file));
    }
    match &Profile::load(&target, environment)?.ca_bundle {
        Some(set) => roots::read(&target, &set.place, Path::new(&set.value)),
        None => Ok(Vec::new()),
    }
}

/// The variables that name the server, the first that is set counts.
const ENDPOINT_VARIABLES: &[&str] = &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

fn endpoint(
    spec: &TargetSpec,
    environment: &Environment,
    profile: &Profile,
) -> Result<Option<String>, OpenError> {
    let of_variable = |name: &'static str| Some((name, environment.get(name)?));
    let of_profile = || {
        let set = profile.endpoint.as_ref()?;
        Some((set.place.as_str(), set.value.as_str()))
    };
    let of_spec = spec.endpoint.as_deref().map(|text| ("endpoint", text));
    let named = of_spec
        .or_else(|| ENDPOINT_VARIABLES.iter().copied().find_map(of_variable))
        .or_else(of_profile);
    let Some((name, text)) = named else {
        return Ok(None);
    };
    let server = setting::server(text);
    let server = server.map_err(|what| OpenError::setting(&spec.label(), name, what))?;
    Ok(Some(server))
}

fn region(
    spec: &TargetSpec,
    environment: &Environment,
    profile: &Profile,
) -> Result<String, OpenError> {
    let of_variable = |name: &'static str| Some((name, environment.get(name)?));
    let of_profile = || {
        let set = profile.region.as_ref()?;
        Some((set.place.as_str(), set.value.as_str()))
    };
    let of_spec = spec.region.as_deref().map(|text| ("region", text));
    let named = of_spec
        .or_else(|| of_variable("AWS_REGION"))
        .or_else(|| of_variable("AWS_DEFAULT_REGION"))
        .or_else(of_profile);
    let (name, region) = named.unwrap_or(("region", DEFAULT_REGION));
    let checked = setting::check(Takes::Label, region);
    checked.map_err(|what| OpenError::setting(&spec.label(), name, what))?;
    Ok(region.to_owned())
}

fn with_bucket_in_host(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((_, host)) if host.starts_with(&format!("{bucket}.")) => endpoint.to_owned(),
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => format!("{bucket}.{endpoint}"),
    }
}

fn credentials(
    endpoint: &Option<String>,
    spec: &TargetSpec,
    environment: &Environment,
    profile: &Profile,
) -> Result<Credentials, OpenError> {
    let missing = |reason: String| OpenError::Credentials {
        target: spec.label(),
        reason,
    };
    match (
        environment.get("AWS_ACCESS_KEY_ID"),
        environment.get("AWS_SECRET_ACCESS_KEY"),
    ) {
        (Some(_), Some(_)) => return Ok(Credentials::OfEnvironment),
        (None, None) => {}
        _ => {
            return Err(missing(
                "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set".to_owned(),
            ));
        }
    }
    let anonymous = environment
        .get("AWS_SKIP_SIGNATURE")
        .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
    if anonymous || environment.has_any(&ROLE_VARIABLES) {
        return Ok(Credentials::OfEnvironment);
    }
    if let Some(keys) = profile.keys(&spec.label())? {
        return Ok(Credentials::Keys(keys));
    }
    if let Some(setting) = profile.unsupported {
        return Err(missing(format!(
            "the AWS profile uses {setting}, which sealift does not support; export the keys that `aws configure export-credentials --format env` prints"
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
    let role = InstanceRole::new().map_err(|source| OpenError::Client {
        target: spec.label(),
        source: Box::new(StoreError::from(source)),
    })?;
    Ok(Credentials::Role(Arc::new(role)))
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
        let account = Account::find(&bucket, spec, &environment).ok().unwrap();
        let built = account.builder(&bucket, spec, &environment);
        built.get_config_value(&key)
    }

    const KEYS: [(&str, &str); 3] = [
        ("AWS_ACCESS_KEY_ID", "AK"),
        ("AWS_SECRET_ACCESS_KEY", "SK"),
        ("AWS_SESSION_TOKEN", "TOKEN"),
    ];

    #[test]
    fn keys_and_token_come_from_the_environment() {
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
    fn missing_credentials_for_a_foreign_server_are_reported_at_once() {
        let mut spec = TargetSpec::from_url("s3://bucket");
        spec.endpoint = Some("https://s3.example.org".to_owned());
        let bucket = Bucket {
            name: "bucket".to_owned(),
            prefix: String::new(),
        };
        let error = Account::find(&bucket, &spec, &Environment::default());
        let error = error.err().unwrap();
        assert!(error.to_string().contains("~/.aws/credentials"), "{error}");
    }
}
