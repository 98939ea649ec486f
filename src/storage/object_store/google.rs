//! The settings of a Google target: environment variables and account files.

use std::path::Path;

use object_store::gcp::GoogleConfigKey;
use serde_json::Value;

use crate::storage::environment::Environment;
use crate::storage::error::OpenError;
use crate::storage::setting::{self, Takes};
use crate::storage::spec::TargetSpec;

/// Prefixes of the variables that configure the library.
pub(super) const PREFIXES: [&str; 1] = ["GOOGLE_"];
/// Google's own server.
pub(super) const SERVER: &str = "https://storage.googleapis.com";
/// Variables that name the metadata server.
const METADATA: [&str; 3] = ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"];
/// Variables that name the file of an account.
const ACCOUNT_FILES: [&str; 3] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
];

/// Checks every value before the library reads it.
pub(super) fn check(spec: &TargetSpec, environment: &Environment) -> Result<(), OpenError> {
    let target = spec.label();
    environment.check(&target, |name| takes(name, spec))?;
    if let Some(key) = environment.get("GOOGLE_SERVICE_ACCOUNT_KEY") {
        check_account(&target, "GOOGLE_SERVICE_ACCOUNT_KEY", key)?;
    }
    for name in ACCOUNT_FILES {
        if let Some(file) = environment.get(name) {
            let text = setting::read_regular_file(Path::new(file)).map_err(|error| {
                let what = format!("names {file}, which cannot be read: {error}");
                OpenError::setting(&target, name, what)
            })?;
            check_account(&target, name, &text)?;
        }
    }
    Ok(())
}

/// Returns the server that the environment names, or the account's file that it names.
pub(super) fn endpoint(environment: &Environment) -> Option<String> {
    if let Some(named) = environment.get("GOOGLE_BASE_URL") {
        return Some(named.to_owned());
    }
    if let Some(key) = environment.get("GOOGLE_SERVICE_ACCOUNT_KEY") {
        return server_of_account(key);
    }
    // The library takes the last that is set.
    let files = ["GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT"];
    let file = files.iter().find_map(|name| environment.get(name))?;
    // A file that cannot be read is an error when the target is opened.
    server_of_account(&setting::read_regular_file(Path::new(file)).ok()?)
}

fn server_of_account(text: &str) -> Option<String> {
    let account: Value = serde_json::from_str(text).ok()?;
    account["gcs_base_url"].as_str().map(str::to_owned)
}

/// Returns the form that a variable must have. `None`: a Google target does not read it.
fn takes(name: &str, spec: &TargetSpec) -> Option<Takes> {
    use GoogleConfigKey as Key;
    if METADATA.contains(&name) {
        return Some(Takes::Host);
    }
    if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    match name.to_ascii_lowercase().parse().ok()? {
        // The key is JSON of any number of lines; the URL names the bucket; the client's own
        // settings are not used.
        Key::ServiceAccountKey | Key::Bucket | Key::Client(_) => None,
        Key::BaseUrl => spec.endpoint.is_none().then_some(Takes::Server),
        Key::BearerToken => Some(Takes::Word),
        _ => Some(Takes::Text),
    }
}

/// Checks the server that an account may name. The library itself refuses invalid JSON.
fn check_account(target: &str, name: &str, text: &str) -> Result<(), OpenError> {
    let Some(server) = server_of_account(text) else {
        return Ok(());
    };
    let wrong = |what| OpenError::setting(target, name, format!("has a gcs_base_url that {what}"));
    setting::server(&server).map(drop).map_err(wrong)
}
