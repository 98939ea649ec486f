//! The settings of an Azure target: environment variables.

use object_store::azure::AzureConfigKey;

use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::setting::{self, Takes};
use crate::storage::spec::TargetSpec;

/// Prefixes of the variables that an Azure target reads.
pub(super) const PREFIXES: [&str; 3] = ["AZURE_", "MSI_", "IDENTITY_"];

/// Variable that names a file with a token.
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// Checks every value before the library reads it.
pub(super) fn check(spec: &TargetSpec, environment: &Environment) -> Result<(), OpenError> {
    let target = spec.label();
    environment.check(&target, |name| takes(name, spec))?;
    match environment.get(TOKEN_FILE) {
        Some(file) => setting::check_token_file(&target, TOKEN_FILE, file),
        None => Ok(()),
    }
}

/// Returns the form that a variable must have. `None`: an Azure target does not read it.
fn takes(name: &str, spec: &TargetSpec) -> Option<Takes> {
    use AzureConfigKey as Key;
    match name {
        "IDENTITY_HEADER" => return Some(Takes::Word),
        "AZURITE_BLOB_STORAGE_URL" => return Some(Takes::Server),
        _ if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) => return None,
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
