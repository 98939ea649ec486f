//! The server to which the requests of a target go, as its URL, its settings and the environment
//! say. Nothing is asked.

use super::{azure, google};
use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::s3::credentials;
use crate::storage::setting;
use crate::storage::spec::TargetSpec;
use crate::storage::url::Address;

/// Which server holds a bucket's objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::storage) struct ChosenServer {
    /// Its address, if the operator chose it. `None`: the provider's own.
    pub endpoint: Option<String>,
    /// The account that owns the bucket, where names of buckets are an account's own (Azure).
    pub account: Option<String>,
}

/// Returns which server the operator chose for a bucket. Targets without buckets have none.
pub(in crate::storage) fn chosen(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<ChosenServer, OpenError> {
    let endpoint = match address {
        Address::S3(_) => credentials::chosen_endpoint(spec, environment)?,
        Address::Gcs(_) => named(spec, google::endpoint(environment))?,
        Address::Azure(_) => {
            return Ok(ChosenServer {
                endpoint: match azure::emulator(environment) {
                    Some(emulator) => Some(emulator),
                    None => named(spec, azure::endpoint(environment))?,
                },
                account: azure::account(environment),
            });
        }
        Address::WebDav { .. }
        | Address::Memory
        | Address::Folder(_)
        | Address::Rsync(_)
        | Address::Sftp(_) => None,
    };
    Ok(ChosenServer {
        endpoint,
        account: None,
    })
}

/// Returns the address to which the target's requests go. `None`: not by HTTP.
pub(super) fn address(
    address: &Address,
    spec: &TargetSpec,
    environment: &Environment,
) -> Result<Option<String>, OpenError> {
    let chosen = || chosen(address, spec, environment);
    Ok(Some(match address {
        Address::S3(bucket) => credentials::server(bucket, spec, environment)?,
        Address::Gcs(_) => match chosen()?.endpoint {
            Some(endpoint) => endpoint,
            None => google::SERVER.to_owned(),
        },
        Address::Azure(_) => match chosen()? {
            ChosenServer {
                endpoint: Some(endpoint),
                ..
            } => endpoint,
            ChosenServer { account, .. } => {
                azure::own_server(account.as_deref().unwrap_or_default(), environment)
            }
        },
        Address::WebDav { origin, .. } => origin.clone(),
        Address::Memory | Address::Folder(_) | Address::Rsync(_) | Address::Sftp(_) => {
            return Ok(None);
        }
    }))
}

/// Returns the target's `endpoint`, else `other`, which is checked with the rest of the
/// environment.
fn named(spec: &TargetSpec, other: Option<String>) -> Result<Option<String>, OpenError> {
    let Some(endpoint) = &spec.endpoint else {
        return Ok(other.map(|text| setting::server(&text).unwrap_or(text)));
    };
    let server = setting::server(endpoint);
    let server = server.map_err(|what| OpenError::setting(&spec.label(), "endpoint", what))?;
    Ok(Some(server))
}
