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

/// Variables with credentials that the library prefers to that file.
const OTHER_CREDENTIALS: [&str; 4] = [
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
];

/// Checks every value before the library reads it.
pub(super) fn check(spec: &TargetSpec, environment: &Environment) -> Result<(), OpenError> {
    let target = spec.label();
    environment.check(&target, |name| takes(name, spec))?;
    // Other credentials take precedence over the file, which is not read then.
    let is_set = |name: &&str| environment.get(name).is_some();
    let has_key = OTHER_CREDENTIALS.iter().any(is_set);
    match environment.get(TOKEN_FILE) {
        Some(file) if !has_key => setting::check_token_file(&target, TOKEN_FILE, file),
        _ => Ok(()),
    }
}

/// Returns the server that the environment names.
pub(super) fn endpoint(environment: &Environment) -> Option<String> {
    // The library takes the last that is set.
    let names = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"];
    let named = names.iter().find_map(|name| environment.get(name));
    named.map(str::to_owned)
}

/// Returns the name of the account that the environment names.
pub(super) fn account(environment: &Environment) -> Option<String> {
    let named = environment.get("AZURE_STORAGE_ACCOUNT_NAME");
    named.map(str::to_owned)
}

/// Returns the address of the emulator, if the environment says to use it: then it wins over every
/// endpoint.
pub(super) fn emulator(environment: &Environment) -> Option<String> {
    if !is_on(environment, "AZURE_STORAGE_USE_EMULATOR") {
        return None;
    }
    let named = environment.get("AZURITE_BLOB_STORAGE_URL");
    Some(named.unwrap_or("http://127.0.0.1:10000").to_owned())
}

/// Returns the address of the provider's own server for an account.
pub(super) fn own_server(account: &str, environment: &Environment) -> String {
    let domain = match is_on(environment, "AZURE_USE_FABRIC_ENDPOINT") {
        true => "blob.fabric.microsoft.com",
        false => "blob.core.windows.net",
    };
    match account {
        // The library refuses a target without an account.
        "" => format!("https://{domain}"),
        account => format!("https://{account}.{domain}"),
    }
}

/// Whether a variable has one of the values that the library takes for yes.
fn is_on(environment: &Environment, name: &str) -> bool {
    let value = environment.get(name).unwrap_or_default();
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "true" | "on" | "yes" | "y"
    )
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
