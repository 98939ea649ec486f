//! What a Google target reads from the environment and from the files of its accounts.

use std::path::Path;

use object_store::gcp::GoogleConfigKey;
use serde_json::Value;

use super::setting::{self, Takes};
use super::{Environment, OpenError, TargetSpec};

pub(super) const PREFIXES: [&str; 1] = ["GOOGLE_"];
const METADATA: [&str; 3] = ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"];
const ACCOUNT_FILES: [&str; 3] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
];

/// Looks at every value before the library meets it.
pub(super) fn check(spec: &TargetSpec, environment: &Environment) -> Result<(), OpenError> {
    let target = spec.label();
    environment.check(&target, |name| takes(name, spec))?;
    if let Some(key) = environment.get("GOOGLE_SERVICE_ACCOUNT_KEY") {
        check_account(&target, "GOOGLE_SERVICE_ACCOUNT_KEY", key)?;
    }
    for name in ACCOUNT_FILES {
        if let Some(file) = environment.get(name) {
            let text = setting::read_file(Path::new(file)).map_err(|error| {
                let what = format!("names {file}, which cannot be read: {error}");
                OpenError::setting(&target, name, what)
            })?;
            check_account(&target, name, &text)?;
        }
    }
    Ok(())
}

fn takes(name: &str, spec: &TargetSpec) -> Option<Takes> {
    use GoogleConfigKey as Key;
    if METADATA.contains(&name) {
        return Some(Takes::Host);
    }
    if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    match name.to_ascii_lowercase().parse().ok()? {
        // JSON, on as many lines as it likes; the bucket is the URL's; of the client's own settings none is used.
        Key::ServiceAccountKey | Key::Bucket | Key::Client(_) => None,
        Key::BaseUrl => spec.endpoint.is_none().then_some(Takes::Server),
        Key::BearerToken => Some(Takes::Word),
        _ => Some(Takes::Text),
    }
}

/// An account may name a server of its own. What is no JSON, the library refuses.
fn check_account(target: &str, name: &str, text: &str) -> Result<(), OpenError> {
    let account: Value = serde_json::from_str(text).unwrap_or_default();
    let Some(server) = account.get("gcs_base_url").and_then(Value::as_str) else {
        return Ok(());
    };
    let wrong = |what| OpenError::setting(target, name, format!("has a gcs_base_url that {what}"));
    setting::server(server).map(drop).map_err(wrong)
}
